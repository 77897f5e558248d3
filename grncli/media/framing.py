"""How an image or a frame is fitted to the size a model takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    """A size option, parsed: ``256`` (square), ``480x832`` (cover, height x width) or ``native``."""

    mode: Literal["square", "cover", "native"]
    height: int | None
    width: int | None

    def __str__(self) -> str:
        if self.mode == "cover":
            return f"{self.height}x{self.width}"
        return str(self.height) if self.mode == "square" else "native"


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
    framing : square and cover resize and crop the centre; native only crops
    stride : (frames, rows, columns) of one token; used by native only

    Raises
    ------
    MediaError
        If native and smaller than one token, or so narrow that resizing would exceed MAX_PIXELS.
    """
    if framing.height is None or framing.width is None:
        left, top, width, height = _native_box(image.width, image.height, stride)
    else:
        square = framing.mode == "square"
        image = _shortest(image, framing.height) if square else _cover(image, framing.height, framing.width)
        width, height = framing.width, framing.height
        left, top = (image.width - width) // 2, (image.height - height) // 2
    if (width, height) == image.size:
        return image
    return image.crop((left, top, left + width, top + height))


def frame_array(frame: NDArray[np.uint8], framing: Framing, stride: Stride) -> NDArray[np.uint8]:
    """:func:`frame_image` on one frame [H, W, 3]; the result may be a view of ``frame``."""
    if framing.mode == "native":
        left, top, width, height = _native_box(frame.shape[1], frame.shape[0], stride)
        return frame[top : top + height, left : left + width]
    return np.asarray(frame_image(Image.fromarray(frame), framing, stride))


def _shortest(image: Image.Image, size: int) -> Image.Image:
    """Shorter side brought to ``size`` the way ADM prepared ImageNet: halvings, then one bicubic step."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    return _resize(image, round(image.width * scale), round(image.height * scale))


def _cover(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = max(height / image.height, width / image.width)
    return _resize(image, max(width, round(image.width * scale)), max(height, round(image.height * scale)))


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    if (width, height) == image.size:
        return image
    if width * height > MAX_PIXELS:
        raise MediaError(f"is {image.width}x{image.height} pixels, too narrow: resized it would be {width}x{height}")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _native_box(width: int, height: int, stride: Stride) -> tuple[int, int, int, int]:
    """Left, top, width and height of the largest centred box of whole tokens."""
    _, rows, columns = stride
    if width < columns or height < rows:
        raise MediaError(
            f"is {width}x{height} pixels, smaller than one token of {columns}x{rows}; leave it out, or give a size"
        )
    kept_width, kept_height = width - width % columns, height - height % rows
    return (width - kept_width) // 2, (height - kept_height) // 2, kept_width, kept_height
