"""Pixels of every depth and meaning as 8-bit RGB.

Pillow has 8 bits per channel, and a few modes of more for grey. What it clips, inverts or drops on the way
there is corrected here, or refused where the file does not say what is black and what is white.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin

from grncli.media.endings import misses_rows
from grncli.runtime.errors import MediaError

Pixels = NDArray[np.uint8]

_WHITE_16 = 65535
_TIFF_FORMATS = {2: "signed integers", 3: "floating point"}
_LUMA = (0.299, 0.587, 0.114)
_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
"""Black and white of Y, Cb and Cr where a TIFF does not define them."""
_PNG_GREY_STEP = {"L;2": 85, "L;4": 17}
"""Between two neighbouring greys of PNG, by Pillow's name for the depth."""
_PLAIN_BYTES = 16
"""Bytes read for one number of a plain PNM; it needs 2 to 6."""


def to_rgb(image: Image.Image, file: BinaryIO, background: str = "white") -> Image.Image:
    """Pixels of an opened image, not loaded yet, as mode RGB.

    Parameters
    ----------
    image : from ``Image.open``
    file : what it was opened from
    background : colour behind transparency

    Raises
    ------
    MediaError
        If the pixels have no known 8-bit meaning.
    """
    convert = _CONVERTERS.get(image.format or "")
    image = convert(image, file) if convert is not None else image
    _check_range(image)
    if image.mode.startswith("I;16"):
        image = _from_16_bit(image, _WHITE_16)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        behind = Image.new("RGBA", rgba.size, background)
        return Image.alpha_composite(behind, rgba).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _check_range(image: Image.Image) -> None:
    if image.mode in ("F", "I"):
        raise _no_meaning("floating point" if image.mode == "F" else "32-bit integers")


def _no_meaning(kind: str) -> MediaError:
    return MediaError(f"holds {kind}, whose range has no known meaning; convert it to 8 or 16 bits")


def _from_16_bit(image: Image.Image, white: int, *, inverted: bool = False) -> Image.Image:
    """Grey of 0..white scaled to 0..255; Pillow's own conversion would clip at 255."""
    table, values = _to_8_bits(white), np.asarray(image)
    if values.size and values.max() > white:
        raise MediaError(f"has a value of {values.max()}; its white is {white}")
    grey = Image.fromarray(table[::-1][values] if inverted else table[values])
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _to_8_bits(white: int) -> Pixels:
    """The nearest of 0..255 for each level of 0..white."""
    levels = np.arange(white + 1, dtype=np.uint32)
    return ((255 * levels + white // 2) // white).astype(np.uint8)


def _png(image: Image.Image, file: BinaryIO) -> Image.Image:
    """All rows of a PNG; a transparent colour is in the depth of the file, which Pillow does not keep."""
    transparent = image.info.get("transparency")
    raw_mode = _raw_mode(image)
    image.load()
    # Pillow leaves rows black, the last ones first, where the data end cleanly but too early.
    suspect = image.info.get("interlace") or not np.asarray(image.crop((0, image.height - 1, *image.size))).any()
    if suspect and misses_rows(file):
        raise MediaError("holds fewer rows than its header says; it is cut short or damaged")
    if isinstance(transparent, int) and raw_mode in _PNG_GREY_STEP:
        step = _PNG_GREY_STEP[raw_mode]
        image.info["transparency"] = transparent % (255 // step + 1) * step
    elif isinstance(transparent, int) and raw_mode == "L":
        image.info["transparency"] = transparent % 256
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        return _png_48_bit(image, file, transparent)
    elif isinstance(transparent, tuple):
        image.info["transparency"] = tuple(channel % 256 for channel in transparent)
    return image


def _png_48_bit(image: Image.Image, file: BinaryIO, transparent: tuple[int, ...]) -> Image.Image:
    """RGB of 16 bits with a transparent colour, which only all 16 bits distinguish from its neighbours."""
    del image.info["transparency"]
    file.seek(0)
    with Image.open(file, formats=["PNG"]) as again:
        # Read as if the lower byte came first, Pillow keeps the lower byte.
        again.tile = [tile._replace(args="RGB;16L") for tile in _tiles(again)]
        lower = np.asarray(again)
    values = np.asarray(image).astype(np.uint16) << 8 | lower
    opaque = (values != np.array(transparent, np.uint16)).any(axis=-1)
    image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return image


def _tiff(image: Image.Image, file: BinaryIO) -> Image.Image:
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    tags: Any = image.tag_v2
    formats = {int(kind) for kind in tags.get(339, (1,))}
    bits = tags.get(258, (1,))
    if formats != {1}:
        raise _no_meaning(f"{bits[0]}-bit {_TIFF_FORMATS.get(max(formats), 'numbers of an unknown kind')}")
    photometric = tags.get(262, 0)
    _check_strips(image)
    if photometric == 6 and _raw_mode(image) in ("YCbCr", "RGBX") and _tiles(image)[0].codec_name == "raw":
        return _uncompressed_ycbcr(image)
    if image.mode.startswith("I;16"):
        # Pillow inverts WhiteIsZero for up to 8 bits only, and leaves 12 bits in the low end of a word.
        return _from_16_bit(image, (1 << bits[0]) - 1, inverted=photometric == 0)
    if _has_planes(image) and image.mode in ("LA", "La", "PA"):
        # Pillow puts the second plane in the place of another channel.
        raise MediaError("holds grey and transparency as two planes, which cannot be read; store its channels together")
    if _has_planes(image) and bits[0] == 16:
        _set_planes_of_16_bits(image)
    colormap = tags.get(320)
    if photometric == 3 and colormap and max(colormap) < 256 and image.palette is not None:
        # Some old programs wrote 8 of the 16 bits of a palette.
        count = len(colormap) // 3
        image.load()
        image.putpalette([colormap[channel * count + index] for index in range(count) for channel in range(3)])
    return image


def _has_planes(image: Image.Image) -> bool:
    """Whether a TIFF stores its channels one behind the other."""
    return bool(image.tag_v2.get(284, 1) == 2)  # type: ignore[attr-defined]


def _check_strips(image: Image.Image) -> None:
    """Raise MediaError where strips are missing: Pillow leaves their rows black."""
    width, height = image.size
    tiles = _tiles(image)
    # libtiff reads all planes of a compressed file at once, and says itself what is missing.
    apart = _has_planes(image) and not all(tile.codec_name == "libtiff" for tile in tiles)
    planes = len(image.getbands()) if apart else 1
    covered = sum((right - left) * (lower - upper) for left, upper, right, lower in (tile.extents for tile in tiles))
    if covered < width * height * planes:
        raise MediaError(
            f"holds strips for {covered // planes:,} of {width * height:,} pixels; it is cut short or damaged"
        )


def _uncompressed_ycbcr(image: Image.Image) -> Image.Image:
    """YCbCr that libtiff does not convert, scaled by what the file says of its black and white."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    factors = tuple(tags.get(530, (1, 1)))
    # Older versions of Pillow take it for RGB with a fourth byte.
    if image.mode != "YCbCr" or factors != (1, 1) or not np.allclose(tags.get(529, _LUMA), _LUMA, atol=0.001):
        raise MediaError("is an uncompressed YCbCr TIFF of a kind that cannot be read; store it as RGB")
    references = [float(value) for value in tags.get(532, _FULL_RANGE)]
    levels = np.arange(256.0)
    tables = []
    for (low, high), (black, white) in zip(_pairs(references), _pairs(_FULL_RANGE), strict=True):
        scaled = (levels - low) * (white - black) / ((high - low) or 1.0) + black
        tables += np.clip(np.round(scaled), 0, 255).astype(int).tolist()
    return image.point(tables)


def _pairs(values: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _set_planes_of_16_bits(image: Image.Image) -> None:
    """Pillow unpacks 16-bit planes of an uncompressed TIFF as 8-bit ones."""
    order = "B" if image.tag_v2.prefix == b"MM" else "L"  # type: ignore[attr-defined]
    tiles = _tiles(image)
    if all(tile.codec_name == "libtiff" for tile in tiles):
        return
    if image.mode not in ("RGB", "RGBA"):
        raise MediaError("holds 16-bit planes of a kind that cannot be read; store its channels together")
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=(f"{tile.args[0]};16{order}", *tile.args[1:])) for tile in tiles
    ]


def _pnm(image: Image.Image, file: BinaryIO) -> Image.Image:
    """PBM, PGM and PPM; Pillow scales those of another maximum than 255 in a loop over their values."""
    [tile] = _tiles(image)
    if image.mode not in ("L", "I", "RGB") or (tile.codec_name == "raw" and image.mode != "I"):
        return image
    maximum = _WHITE_16 if tile.codec_name == "raw" else int(tile.args[-1])
    bands = 3 if image.mode == "RGB" else 1
    count = image.width * image.height * bands
    file.seek(tile.offset)
    values = _plain_values(file, count) if tile.codec_name == "ppm_plain" else _raw_values(file, count, maximum)
    if len(values) < count:
        raise MediaError('cannot be decoded: "image file is truncated"')
    if values.min() < 0 or values.max() > maximum:
        raise MediaError(f"has a value of {values.max()}; its header says that {maximum} is the largest")
    shape = (image.height, image.width, bands) if bands > 1 else (image.height, image.width)
    return Image.fromarray(_to_8_bits(maximum)[values].reshape(shape))


def _raw_values(file: BinaryIO, count: int, maximum: int) -> NDArray[Any]:
    kind = np.dtype("u1") if maximum < 256 else np.dtype(">u2")
    data = file.read(count * kind.itemsize)
    return np.frombuffer(data[: len(data) - len(data) % kind.itemsize], kind)


def _plain_values(file: BinaryIO, count: int) -> NDArray[Any]:
    text = re.sub(rb"#[^\r\n]*", b" ", file.read(count * _PLAIN_BYTES + (1 << 20)))
    try:
        return np.fromstring(text, np.int64, sep=" ")[:count]
    except ValueError:
        raise MediaError("holds something other than whole numbers") from None


def _jpeg_2000(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Pillow moves the bits of JPEG 2000 up to 8 or 16: white is right only for these."""
    depths = {(depth & 0x7F) + 1 for depth in _component_depths(file)}
    bands = len(image.getbands())
    if bands > 1 and max(depths) > 8:
        # Its rounding goes past 255 and starts at 0 again: white comes out black.
        raise MediaError(
            f"is a JPEG 2000 of {max(depths)} bits in several channels, which Pillow cannot read; convert it to 8 bits"
        )
    if min(depths) < 8 and image.mode not in ("P", "PA"):
        if len(depths) > 1:
            raise MediaError("is a JPEG 2000 whose channels have different depths; convert it to 8 bits")
        [depth] = depths
        white = ((1 << depth) - 1) << (8 - depth)
        return image.point([min(255, (255 * level + white // 2) // white) for level in range(256)] * bands)
    return image


def _component_depths(file: BinaryIO) -> bytes:
    """Depths of the channels as the codestream's SIZ segment has them: one less, plus 128 if signed."""
    file.seek(0)
    head = file.read(12)
    at = 0
    if head[:4] != b"\xff\x4f\xff\x51":
        at = len(head)
        while True:
            file.seek(at)
            box = file.read(16)
            length, kind, header = int.from_bytes(box[:4], "big"), box[4:8], 8
            if length == 1:
                length, header = int.from_bytes(box[8:], "big"), 16
            if kind == b"jp2c":
                at += header
                break
            if length < header:
                raise MediaError("is a JPEG 2000 without a codestream")
            at += length
    file.seek(at + 4)
    segment = file.read(38)
    depths = file.read(3 * int.from_bytes(segment[36:38], "big"))[::3]
    if not depths:
        raise MediaError("is a JPEG 2000 that says nothing of its channels")
    return depths


def _tga(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Transparency of TGA counts only where a pixel is not fully transparent: many programs leave its bits at zero."""
    file.seek(0)
    header = file.read(18)
    # The single bit next to 15 bits of colour means opaque to some programs and transparent to others.
    if 16 in (header[7], header[16]) and header[2] & 3 != 3:
        return image.convert("RGB")
    if image.mode == "RGBA" and not header[17] & 0x0F and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")
    return image


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of the pixels in the file."""
    args = _tiles(image)[0].args if _tiles(image) else ""
    return args if isinstance(args, str) else str((args or ("",))[0])


def _tiles(image: Image.Image) -> list[Any]:
    tiles = image.tile  # type: ignore[attr-defined]
    assert isinstance(tiles, list)
    return tiles


_CONVERTERS: dict[str, Callable[[Image.Image, BinaryIO], Image.Image]] = {
    PngImagePlugin.PngImageFile.format: _png,
    TiffImagePlugin.TiffImageFile.format: _tiff,
    "PPM": _pnm,
    "JPEG2000": _jpeg_2000,
    "TGA": _tga,
}
