"""How an image or a frame is fitted to the size a model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from grncli.media.budgets import Budget
from grncli.runtime.errors import MediaError, UsageError

MAX_PIXELS = 178_956_970
"""Largest image or frame that is ever decoded or made by resizing (Pillow's own limit)."""

Stride = tuple[int, int, int]
"""Frames, rows and columns of one token."""


def require_pixels(width: int, height: int, limit: int = MAX_PIXELS) -> None:
    """MediaError where an image or frame has more than ``limit`` pixels."""
    if width * height > limit:
        raise MediaError(f"is {width}x{height} pixels; at most {limit:,} pixels are read")


@dataclass(frozen=True)
class Framing:
    """A size option, parsed: ``256`` (square), ``480x832`` (cover, height x width) or ``native``; or a budget.

    A budget covers a size too, that of the aspect ratio nearest to each picture's own: see `of`.
    """

    mode: Literal["square", "cover", "native", "budget"]
    height: int | None
    width: int | None
    pixels: int | None = None  # the area of a budget

    def __str__(self) -> str:
        if self.mode == "budget":
            return f"budget of {self.pixels} pixels"
        if self.mode == "cover":
            return f"{self.height}x{self.width}"
        return str(self.height) if self.mode == "square" else "native"

    def of(self, height: int, width: int, stride: Stride) -> Framing:
        """What it asks of a picture of so many pixels: of a budget the size to cover, of all others the same."""
        if self.pixels is None:
            return self
        rows, columns = Budget(self.pixels).tokens(height / width, stride[1])
        return Framing("cover", rows * stride[1], columns * stride[2])

    def enlarges(self, height: int, width: int, stride: Stride) -> bool:
        """Whether a picture of so many pixels is scaled up."""
        asked = self.of(height, width, stride)
        return height < (asked.height or 0) or width < (asked.width or 0)


def budget_framing(pixels: int) -> Framing:
    """That of a budget of so many pixels."""
    return Framing("budget", None, None, pixels)


def parse_size(text: str) -> Framing:
    """Framing meant by ``text``; UsageError for anything but ``256``, ``480x832`` or ``native``."""
    if text == "native":
        return Framing("native", None, None)
    match = re.fullmatch(r"([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?", text)
    if match is None:
        raise UsageError(f"size {text!r} is neither a number such as 256, nor HEIGHTxWIDTH, nor native.")
    height = int(match[1])
    if match[2] is None:
        return Framing("square", height, height)
    return Framing("cover", height, int(match[2]))


def frame_image(image: Image.Image, framing: Framing, stride: Stride) -> Image.Image:
    """Fit an RGB image to ``framing``.

    Parameters
    ----------
    image : RGB image of any size
    framing : square, cover and budget resize and crop the centre; native only crops
    stride : (frames, rows, columns) of one token; used by native and budget only

    Raises
    ------
    MediaError
        If native and smaller than one token, or so narrow that resizing would exceed MAX_PIXELS.
    """
    framing = framing.of(image.height, image.width, stride)
    if framing.height is None or framing.width is None:
        height, width = _whole_tokens(image.height, image.width, stride)
    else:
        square = framing.mode == "square"
        image = _shortest(image, framing.height) if square else _cover(image, framing.height, framing.width)
        height, width = framing.height, framing.width
    return _centre(image, height, width)


def frame_array(frame: NDArray[np.uint8], framing: Framing, stride: Stride) -> NDArray[np.uint8]:
    """:func:`frame_image` on one frame [H, W, 3]; the result may be a view of ``frame``."""
    if framing.mode == "native":
        height, width = _whole_tokens(frame.shape[0], frame.shape[1], stride)
        top, left = (frame.shape[0] - height) // 2, (frame.shape[1] - width) // 2
        return frame[top : top + height, left : left + width]
    return np.asarray(frame_image(Image.fromarray(frame), framing, stride))


def _shortest(image: Image.Image, size: int) -> Image.Image:
    """Shorter side brought to ``size`` the way ADM prepared ImageNet: halvings, then one bicubic step."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    return _resize(image, round(image.width * scale), round(image.height * scale))


def cover_with_lanczos(image: Image.Image, height: int, width: int) -> Image.Image:
    """An RGB image scaled to cover a size and cropped round its centre, as the release takes first frames of clips.

    Raises
    ------
    MediaError
        If it is so narrow that resizing would exceed MAX_PIXELS.
    """
    return _centre(_cover(image, height, width, Image.Resampling.LANCZOS), height, width)


def _centre(image: Image.Image, height: int, width: int) -> Image.Image:
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _cover(
    image: Image.Image, height: int, width: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    return _resize(image, *covering_size(image.size, height, width), resampling)


def covering_size(size: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """Width and height that an image of a size, width and height too, is scaled to in order to cover another.

    Raises
    ------
    MediaError
        If it is so narrow that they would exceed MAX_PIXELS.
    """
    scale = max(height / size[1], width / size[0])
    covering = max(width, round(size[0] * scale)), max(height, round(size[1] * scale))
    _require_resizable(size, covering)
    return covering


def _resize(
    image: Image.Image, width: int, height: int, resampling: Image.Resampling = Image.Resampling.BICUBIC
) -> Image.Image:
    if (width, height) == image.size:
        return image
    _require_resizable(image.size, (width, height))
    return image.resize((width, height), resampling)


def _require_resizable(before: tuple[int, int], after: tuple[int, int]) -> None:
    if after[0] * after[1] > MAX_PIXELS:
        raise MediaError(f"is {before[0]}x{before[1]} pixels, too narrow: resized it would be {after[0]}x{after[1]}")


def _whole_tokens(height: int, width: int, stride: Stride) -> tuple[int, int]:
    """Height and width without what fills no token; MediaError where that is nothing."""
    _, rows, columns = stride
    if width < columns or height < rows:
        raise MediaError(
            f"is {width}x{height} pixels, smaller than one token of {columns}x{rows}; leave it out, or give a size"
        )
    return height - height % rows, width - width % columns
