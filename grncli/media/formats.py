"""Which files are pictures and which are clips: by their suffix, and by their first bytes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import BinaryIO, Literal

from grncli.runtime.errors import MediaError
from grncli.runtime.system import NONBLOCK, open_file

# Formats that hold all of their picture and start no program, as EPS would. Those of clips stay clips.
IMAGE_SUFFIXES = frozenset(
    {
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "mpo", "webp", "avif", "gif", "tif", "tiff"),
        *("bmp", "tga", "qoi", "pbm", "pgm", "ppm", "pnm", "jp2", "j2k", "j2c", "jpc", "jpf", "jpx"),
    }
)
CLIP_SUFFIXES = frozenset({"mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "mpeg", "ts", "wmv", "flv", "ogv", "y4m"})
PLAYLIST_SUFFIXES = frozenset({"m3u8", "m3u", "concat", "ffconcat", "pls", "mpd", "sdp"})
LIST_SUFFIXES = frozenset({"txt", "lst", "list"})

Kind = Literal["image", "clip"]
KINDS: Mapping[str, Kind] = {**dict.fromkeys(IMAGE_SUFFIXES, "image"), **dict.fromkeys(CLIP_SUFFIXES, "clip")}
"""What a file is by its suffix in lower case."""

HEAD_BYTES = 512
"""First bytes of a file that :func:`image_format` and :func:`kind_of_content` look at."""
# TGA is missing: it begins with nothing of its own. The counts of BMP are the sizes of its header's kinds.
_IMAGES = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("TIFF", re.compile(rb"II[*+]\0|MM\0[*+]")),
    ("BMP", re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)),
    ("AVIF", re.compile(rb".{4}ftyp(?:.{4}){0,30}?avi[fs]", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51")),
    ("QOI", re.compile(rb"qoif")),
    ("PNM", re.compile(rb"P[1-6]\s+(?:#[^\r\n]*\s+)*\d")),
)
_CLIPS = re.compile(
    rb".{4}ftyp|.{4}(?:moov|mdat|wide)|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV\x01|OggS|\0\0\x01[\xb3\xba]"
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11|YUV4MPEG2 |G.{187}G.{187}G",
    re.DOTALL,
)


def suffix_of(path: str) -> str:
    """Suffix of a path in lower case, without the dot."""
    return os.path.splitext(path)[1][1:].lower()


def kind_of_suffix(path: str) -> Kind | None:
    """What a file is by its suffix; None if it is no suffix of media."""
    return KINDS.get(suffix_of(path))


def image_format(head: bytes) -> str | None:
    """Format of the image that begins with ``head``; None if it is none of those that are read."""
    return next((name for name, pattern in _IMAGES if pattern.match(head)), None)


def kind_of_content(path: str) -> Kind | None:
    """What a file is by its first bytes; None if it is neither or cannot be read."""
    try:
        with open_plain(path) as file:
            head = file.read(HEAD_BYTES)
    except (OSError, MediaError):
        return None
    if image_format(head) is not None:
        return "image"
    return "clip" if _CLIPS.match(head) else None


def open_plain(path: str) -> BinaryIO:
    """Open a file for reading; MediaError if it is a pipe, a device or another thing that may never end."""
    file = os.fdopen(open_file(path, os.O_RDONLY | NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise MediaError("is not a plain file")
    return file
