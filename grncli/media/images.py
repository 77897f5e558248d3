"""Still images of every common kind as 8-bit RGB: the one place where a picture is opened.

Of a file with several pictures the first is read: the first page of a TIFF, the first frame of an animated PNG, WebP
or AVIF and of a GIF of fewer than ANIMATION_FRAMES frames. A longer GIF is a clip, and read as one.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass, replace
from types import ModuleType
from typing import BinaryIO

# Naming the plugins registers their formats: Image.open would otherwise import all of Pillow's
# plugins the first time it meets a WebP or TIFF file.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from grncli.media.depths import to_rgb
from grncli.media.endings import misses_end, png_chunks, with_end
from grncli.media.formats import HEAD_BYTES, image_format, open_plain
from grncli.media.framing import MAX_PIXELS, require_pixels
from grncli.runtime.errors import MediaError

AvifImagePlugin: ModuleType | None
try:
    from PIL import AvifImagePlugin
except ImportError:
    # Pillow before 11.3; a later one may be built without the decoder.
    AvifImagePlugin = None

# Read by the JPEG plugin, which would import it at the first one.
assert MpoImagePlugin
# An explicit list: Pillow would start Ghostscript for a PostScript file named .png.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "PNM": PpmImagePlugin.PpmImageFile,
    "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "QOI": QoiImagePlugin.QoiImageFile,
    **({"AVIF": AvifImagePlugin.AvifImageFile} if AvifImagePlugin is not None else {}),
}
FORMATS = [str(plugin.format) for plugin in _PLUGINS.values()]
_TGA = str(TgaImagePlugin.TgaImageFile.format)
_NAMES = "PNG, JPEG, WebP, AVIF, TIFF, BMP, GIF, PNM, JPEG 2000, QOI or TGA"
ANIMATION_FRAMES = 5
"""A GIF of at least this many frames is a clip; fewer, and its first frame is an image."""
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What puts a picture upright, by its EXIF orientation."""
_TOO_MUCH_TEXT = "MAX_TEXT"
"""In the words of Pillow for a PNG whose texts or profile unpack to more than it allows."""
_PNG_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})
_PLAIN_XMP = b"XML:com.adobe.xmp\0\0"
_NO_END = "the file ends before its end marker; every pixel is there"


def open_image(
    file: str | BinaryIO,
    *,
    at_least: int | None = None,
    suffix: str = "",
    background: str = "white",
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Decode one image: the right way up, transparency over ``background``, 8 bits per channel, fully loaded.

    Parameters
    ----------
    file : path, or binary stream positioned at the start
    at_least, suffix, background, max_pixels : see `ImageDecoder`

    Raises
    ------
    MediaError
        See `ImageDecoder.decode`.
    """
    decoder = ImageDecoder(at_least, suffix, background, max_pixels)
    if not isinstance(file, str):
        return decoder.decode(file)[0]
    try:
        stream = open_plain(file)
    except OSError as error:
        raise MediaError(f"cannot be opened: {error.strerror or error}") from None
    with stream:
        return decoder.decode(stream)[0]


@dataclass(frozen=True)
class ImageDecoder:
    """How images are decoded.

    Parameters
    ----------
    at_least : if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as neither
        side falls below this many pixels (several times faster; not the same pixels)
    suffix : that of the file's name: TGA begins with nothing of its own and is read only under ``tga``
    background : colour that transparency lies over
    max_pixels : at most MAX_PIXELS
    """

    at_least: int | None = None
    suffix: str = ""
    background: str = "white"
    max_pixels: int = MAX_PIXELS

    def decode(self, file: BinaryIO) -> tuple[Image.Image, str | None]:
        """Image of mode RGB, and a note on what is missing after the pixels, or None.

        A file that is cut short is read if nothing but its end marker is missing.

        Raises
        ------
        MediaError
            If the file is of none of the formats listed here or no plain file, is damaged, has more than ``max_pixels``
            pixels (found from the header, before memory is taken) or has pixels no 8-bit meaning is
            known for (floating point, 32-bit and signed integers).
        """
        with warnings.catch_warnings():
            # What Pillow warns of (odd EXIF, sizes near the limit) does not change the pixels.
            warnings.simplefilter("ignore")
            try:
                return self._decoded(file)
            except (MediaError, KeyboardInterrupt):
                raise
            except UnidentifiedImageError:
                raise _unidentified(file) from None
            except Image.DecompressionBombError as error:
                count = re.search(r"\((\d+) pixels\)", str(error))
                pixels = f"{int(count[1]):,}" if count else "too many"
                raise MediaError(f"has {pixels} pixels; at most {MAX_PIXELS:,} pixels are read") from None
            except Exception as error:
                # Pillow's plugins raise a dozen kinds (OSError, SyntaxError, struct.error, ...) on bad data.
                raise MediaError(f'cannot be decoded: "{_first_line(error)}"') from error

    def _decoded(self, file: BinaryIO) -> tuple[Image.Image, str | None]:
        try:
            image, image_format = self._pixels(file)
        except UnidentifiedImageError:
            raise
        except ValueError as error:
            if _TOO_MUCH_TEXT not in str(error):
                raise
            file = _without_texts(file)
            image, image_format = self._pixels(file)
        except OSError:
            completed = self._completed(file)
            if completed is None:
                raise
            return self._pixels(completed)[0], _NO_END
        return image, _NO_END if misses_end(file, image_format) else None

    def _pixels(self, file: BinaryIO) -> tuple[Image.Image, str]:
        """Pixels of an image, and its format."""
        formats = [*FORMATS, _TGA] if self.suffix == "tga" else FORMATS
        with Image.open(file, formats=formats) as image:
            require_pixels(image.width, image.height, self.max_pixels)
            if self.at_least is not None:
                image.draft(None, (self.at_least, self.at_least))
            image_format = image.format or ""
            rgb = to_rgb(image, file, self.background)
            # Asked of the loaded file: PNG may have it behind the pixels, and a loaded TIFF is upright already.
            turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
            return rgb if turn is None else rgb.transpose(turn), image_format

    def _completed(self, file: BinaryIO) -> BinaryIO | None:
        """``file`` completed by its end marker; None if pixels are missing as well.

        libjpeg shows grey for what is missing and says nothing, so that decoding without an error proves nothing.
        """
        file.seek(0)
        versions = with_end(file.read())
        whole = replace(self, at_least=None)
        try:
            pixels = {whole._pixels(io.BytesIO(version))[0].tobytes() for version in versions}
        except Exception:
            return None
        return io.BytesIO(versions[0]) if len(pixels) == 1 else None


def is_animation(file: BinaryIO) -> bool:
    """Whether ``file`` is a GIF of at least ANIMATION_FRAMES frames; leaves it at its start."""
    file.seek(0)
    try:
        with Image.open(file, formats=["GIF"]) as image:
            require_pixels(image.width, image.height)
            image.seek(ANIMATION_FRAMES - 1)
            return True
    except Exception:
        # Not a GIF, too short or damaged: open_image says which.
        return False
    finally:
        file.seek(0)


def _without_texts(file: BinaryIO) -> BinaryIO:
    """A PNG without its texts and colour profile: Pillow refuses all of a file in which they unpack to too much."""
    file.seek(0)
    data = file.read()
    parts = [data[:8]]
    for kind, start, end in png_chunks(data):
        # XMP that is not compressed may say which way is up.
        if kind not in _PNG_TEXTS or data.startswith(_PLAIN_XMP, start):
            parts.append(data[start - 8 : end + 4])
    return io.BytesIO(b"".join(parts))


def _unidentified(file: BinaryIO) -> MediaError:
    """Why no plugin took ``file``: Pillow keeps the reason of the one that should have to itself."""
    file.seek(0)
    name = image_format(file.read(HEAD_BYTES))
    if name is None:
        return MediaError(f"is not a {_NAMES} image")
    reason = "the installed Pillow has no decoder for it"
    if name in _PLUGINS:
        file.seek(0)
        try:
            _PLUGINS[name](file)
        except Exception as error:
            reason = _first_line(error)
    return MediaError(f'is a file of format {name} that cannot be read: "{reason}"; convert it to 8-bit PNG')


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
