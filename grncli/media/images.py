"""Still images of every common kind as 8-bit RGB."""

from __future__ import annotations

import re
import warnings
from typing import BinaryIO

import numpy as np

# Naming the plugins registers their formats: Image.open would otherwise import all of Pillow's
# plugins the first time it meets a WebP or TIFF file.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from grncli.errors import MediaError
from grncli.media.framing import MAX_PIXELS

__all__ = ["ANIMATION_FRAMES", "MAX_PIXELS", "is_animation", "open_image"]

_PLUGINS = (
    BmpImagePlugin.BmpImageFile,
    GifImagePlugin.GifImageFile,
    JpegImagePlugin.JpegImageFile,
    PngImagePlugin.PngImageFile,
    TiffImagePlugin.TiffImageFile,
    WebPImagePlugin.WebPImageFile,
)
# An explicit list (the JPEG plugin reads MPO as well): Pillow would start Ghostscript for a PostScript file named .png.
FORMATS = [plugin.format for plugin in _PLUGINS]
ANIMATION_FRAMES = 5
"""A GIF of at least this many frames is a clip; fewer, and its first frame is an image."""


def open_image(file: str | BinaryIO, *, at_least: int | None = None) -> Image.Image:
    """Decode one image: the right way up, transparency over white, 8 bits per channel.

    Parameters
    ----------
    file : path, or binary stream positioned at the start
    at_least : if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as neither
        side falls below this many pixels (several times faster; not the same pixels)

    Returns
    -------
    image of mode RGB, fully loaded

    Raises
    ------
    MediaError
        If the file is none of PNG, JPEG, WebP, TIFF, BMP or GIF, is damaged, has more than MAX_PIXELS
        pixels (found from the header, before memory is taken) or has pixels no 8-bit meaning is
        known for (floating point, 32-bit integers).
    """
    with warnings.catch_warnings():
        # What Pillow warns of (odd EXIF, sizes near the limit) does not change the pixels.
        warnings.simplefilter("ignore")
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image)
                if at_least is not None:
                    image.draft(None, (at_least, at_least))
                ImageOps.exif_transpose(image, in_place=True)
                return _to_rgb(image)
        except (MediaError, KeyboardInterrupt):
            raise
        except UnidentifiedImageError:
            raise MediaError("is not a PNG, JPEG, WebP, TIFF, BMP or GIF image") from None
        except Image.DecompressionBombError as error:
            raise _too_large(error) from None
        except Exception as error:
            # Pillow's plugins raise a dozen kinds (OSError, SyntaxError, struct.error, ...) on bad data.
            raise MediaError(_reason(error)) from error


def is_animation(file: BinaryIO) -> bool:
    """Whether ``file`` is a GIF of at least ANIMATION_FRAMES frames; leaves it at its start."""
    file.seek(0)
    try:
        with Image.open(file, formats=["GIF"]) as image:
            _check_size(image)
            image.seek(ANIMATION_FRAMES - 1)
            return True
    except Exception:
        # Not a GIF, too short or damaged: open_image says which.
        return False
    finally:
        file.seek(0)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise MediaError(f"is {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} pixels are read")


def _too_large(error: Image.DecompressionBombError) -> MediaError:
    found = re.search(r"\((\d+) pixels\)", str(error))
    pixels = f"{int(found[1]):,}" if found else "too many"
    return MediaError(f"has {pixels} pixels; at most {MAX_PIXELS:,} pixels are read")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        kind = "floating point" if image.mode == "F" else "32-bit integers"
        raise MediaError(f"holds {kind}, whose range has no known meaning; convert it to 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Grey of 0..65535 scaled to 0..255; Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f'cannot be decoded: "{text or type(error).__name__}"'
