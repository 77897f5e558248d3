"""Pictures as PNG, JPEG or WebP: the same pixels give the same bytes on one version of the encoder."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.media.writing import Frames, write_mp4, write_png
from grncli.runtime.files import whole_file


@dataclass(frozen=True)
class PictureFormat:
    """A format of pictures.

    Parameters
    ----------
    name : ``png``, ``jpg`` or ``webp``, which is also the suffix of its files
    quality : 1 to 100 for the two that lose some; None for PNG
    """

    name: str
    quality: int | None = None

    @property
    def suffix(self) -> str:
        """Of its files, with the dot."""
        return f".{self.name}"

    def write(self, path: Path, pixels: NDArray[np.uint8]) -> None:
        """Write uint8 ``[H, W, 3]`` RGB to a file, which appears whole; its folder exists."""
        if self.quality is None:
            write_png(path, pixels)
            return
        with whole_file(path) as temporary:
            self._save(temporary, pixels)

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """The bytes of such a file."""
        buffer = io.BytesIO()
        self._save(buffer, pixels)
        return buffer.getvalue()

    def write_media(self, path: Path, frames: Frames, fps: float) -> None:
        """Write ``frames`` [T, H, W, 3] as a picture if there is one, else as MP4."""
        if len(frames) == 1:
            self.write(path, frames[0])
        else:
            write_mp4(path, frames, fps)

    def _save(self, file: Path | io.BytesIO, pixels: NDArray[np.uint8]) -> None:
        kinds = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
        options: dict[str, Any] = {} if self.quality is None else {"quality": self.quality}
        if self.name == "jpg":
            options["subsampling"] = "4:4:4"  # colours as fine as brightness: pictures are small, and read again
        Image.fromarray(pixels).save(file, format=kinds[self.name], **options)


PNG = PictureFormat("png")
