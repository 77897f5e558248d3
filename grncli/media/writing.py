"""Pixels to files: PNG pictures, MP4 clips and contact sheets; each file appears whole or not at all."""

import re
import subprocess
import tempfile
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from grncli.media.clip_decoding import ffmpeg
from grncli.media.selection import evenly_spread
from grncli.runtime.errors import MediaError
from grncli.runtime.files import whole_file
from grncli.runtime.text import printable

WHITE = (255, 255, 255)
HAIRLINE = (222, 222, 222)
INK = (70, 70, 70)
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
FONT_EXTRAS = "\N{DEGREE SIGN}\N{PLUS-MINUS SIGN}\N{MIDDLE DOT}"  # Beyond ASCII, all a caption may want.

# x264's output depends on its thread count, so the count follows from the frame's size and not from the
# machine: the same frames give the same bytes wherever they are encoded.
SMALL_FRAME = 256 * 256
THREADS_FOR_LARGE_FRAMES = 4

Frames = NDArray[np.uint8]  # RGB, [..., H, W, 3]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_png(path: Path, pixels: NDArray[np.uint8], comment: str | None = None) -> None:
    """Write one picture losslessly.

    Parameters
    ----------
    path : file to write or replace; its folder exists
    pixels : [H, W, 3] RGB
    comment : goes into the file's metadata, as the text chunk "Comment"
    """
    _check_pixels(pixels, dimensions=3)
    text = PngInfo()
    if comment is not None:
        text.add_itxt("Comment", _encodable(comment))
    with whole_file(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=text)


def write_mp4(path: Path, frames: NDArray[np.uint8], fps: float, comment: str | None = None) -> None:
    """Write a clip as H.264 (BT.709, limited range) that any player shows in the right colours.

    Parameters
    ----------
    path : file to write or replace; its folder exists
    frames : [T, H, W, 3] RGB, at least one frame
    fps : frames per second, rounded to the nearest fraction over at most 1001 (23.976 becomes 24000/1001)
    comment : goes into the file's metadata, as "comment"

    Raises
    ------
    MediaError
        If ffmpeg is missing or refuses.

    Frames of even size are stored as yuv420p, which every player knows. An odd width or height cannot be
    halved, so these are stored as yuv444p: the size stays exact, but some browsers and phones decline it.
    """
    _check_pixels(frames, dimensions=4)
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"a clip needs a positive frame rate, not {fps}")
    with whole_file(path) as temporary:
        command = _ffmpeg_command(temporary, frames.shape[1:3], rate, comment)
        complaint = _run_ffmpeg(command, np.ascontiguousarray(frames).reshape(-1).data)
        if complaint is not None:
            said = complaint.replace(f"file:{temporary}", str(path))
            raise MediaError(printable(f"{path}: ffmpeg could not write the clip ({said})."))


def write_media(path: Path, frames: NDArray[np.uint8], fps: float, comment: str | None = None) -> None:
    """Write ``frames`` [T, H, W, 3] as PNG if there is one, else as MP4."""
    if len(frames) == 1:
        write_png(path, frames[0], comment)
    else:
        write_mp4(path, frames, fps, comment)


def _check_pixels(pixels: NDArray[np.uint8], *, dimensions: int) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != dimensions or pixels.shape[-1] != 3 or not pixels.size:
        axes = "T, H, W, 3" if dimensions == 4 else "H, W, 3"
        raise ValueError(f"expected uint8 pixels [{axes}], not {pixels.dtype} {list(pixels.shape)}")


def _ffmpeg_command(target: Path, size: tuple[int, int], rate: Fraction, comment: str | None) -> list[str]:
    height, width = size
    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {rate} -i pipe:0"
    # Without this, swscale converts RGB with the BT.601 matrix and leaves no tag, and players guess. The flags
    # spare it the fast, coarse rounding. Only setparams gets primaries and transfer into the file:
    # recent ffmpegs override the encoder's own options by what the filters say.
    convert = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
    tag = "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
    layout = "yuv444p" if height % 2 or width % 2 else "yuv420p"
    threads = 1 if height * width <= SMALL_FRAME else THREADS_FOR_LARGE_FRAMES
    encode = f"-c:v libx264 -preset medium -crf 12 -pix_fmt {layout} -threads {threads}"
    container = "-map_metadata -1 -fflags +bitexact -movflags +faststart -f mp4"
    options = f"-hide_banner -loglevel error -y {source} -vf {convert},{tag} {encode} {container}"
    # "file:" keeps ffmpeg from reading a colon or a leading dash in the name as a protocol or an option.
    metadata = [] if comment is None else ["-metadata", f"comment={_encodable(comment)}"]
    return [ffmpeg(), *options.split(), *metadata, f"file:{target}"]


def _encodable(comment: str) -> str:
    """Names of files may be any bytes; those that are no UTF-8 stand as escapes."""
    return comment.encode("utf-8", "backslashreplace").decode()


def _run_ffmpeg(command: list[str], pixels: memoryview) -> str | None:
    """Feed ``pixels`` to ffmpeg; None when it is content, else the first thing it complained of."""
    # Complaints go to a file, since a full stderr pipe would stall ffmpeg while it is being fed.
    with tempfile.TemporaryFile() as complaints:
        # In its own session, a Ctrl-C in the terminal reaches only us; we then end it ourselves.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            bufsize=0,
            start_new_session=True,
        )
        try:
            _feed(process, pixels)
            failed = process.wait() != 0
        except BaseException:
            process.kill()
            process.wait()
            raise
        if not failed:
            return None
        complaints.seek(0)
        text = complaints.read().decode(errors="replace").strip()
    first = text.splitlines()[0] if text else f"exit code {process.returncode}"
    return re.sub(r"^\[[^\]]* @ [^\]]*\] ", "", first).rstrip(".")


def _feed(process: subprocess.Popen[bytes], pixels: memoryview) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as pipe:
            while pixels:
                pixels = pixels[pipe.write(pixels) :]
    except BrokenPipeError:
        pass  # ffmpeg ended early; its exit code and complaint say more than the broken pipe.


def shown_frames(clip: NDArray[np.uint8], wanted: int = 4) -> list[NDArray[np.uint8]]:
    """Up to ``wanted`` frames of ``clip`` [T, H, W, 3] for a contact sheet, evenly spread over it."""
    return [clip[place] for place in evenly_spread(wanted, len(clip))]


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    captions: Sequence[str] | None = None,
    *,
    cell: int = 192,
    gap: int = 12,
    background: tuple[int, int, int] = WHITE,
) -> NDArray[np.uint8]:
    """Arrange pictures in a grid; the frames of a clip are passed as consecutive pictures of a row.

    Parameters
    ----------
    rows : pictures [H, W, 3] of any sizes; rows may differ in length
    captions : one per picture in reading order, "" for none. One that is wider than its picture may use the room
        below those that follow it without one, and loses its middle where that is too narrow as well.
        A row without any takes no room for them
    cell : the longest side a picture may have on the sheet; larger ones are shrunk, smaller ones enlarged
        by a whole factor with hard pixel edges
    gap : pixels between pictures and around the sheet
    background : colour of the sheet

    Returns
    -------
    [H, W, 3] RGB. Columns are as wide as the widest picture, each row as high as its highest.
    """
    fitted = [[_fit(picture, cell) for picture in row] for row in rows]
    pictures = [picture for row in fitted for picture in row]
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(captions)} captions for {len(pictures)} pictures")
    font = ImageFont.load_default(max(11, round(cell / 14)))
    remaining = iter(captions or [""] * len(pictures))
    texts = [list(islice(remaining, len(row))) for row in fitted]
    line_heights = [_line_height(font) if any(row) else 0 for row in texts]
    column = max(picture.width for picture in pictures)
    heights = [max((picture.height for picture in row), default=0) for row in fitted]
    width = gap + max(map(len, fitted)) * (column + gap)
    height = gap + sum(heights) + sum(line_heights) + gap * len(fitted)
    sheet = Image.new("RGB", (width, height), background)
    draw = ImageDraw.Draw(sheet)
    top = gap
    for row, captioned, row_height, text_height in zip(fitted, texts, heights, line_heights, strict=True):
        for position, (picture, text) in enumerate(zip(row, captioned, strict=True)):
            left = gap + position * (column + gap)
            _place(sheet, picture, left + (column - picture.width) // 2, top + row_height - picture.height)
            if text:
                free = next((i for i, other in enumerate(captioned[position + 1 :]) if other), len(row) - position - 1)
                place = left, top + row_height + text_height / 2
                _write(draw, text, font, place, column, column + free * (column + gap))
        top += row_height + text_height + gap
    return np.array(sheet)


def _fit(pixels: NDArray[np.uint8], cell: int) -> Image.Image:
    _check_pixels(pixels, dimensions=3)
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > cell:
        scaled = tuple(max(1, round(side * cell / longest)) for side in picture.size)
        return picture.resize((scaled[0], scaled[1]), Image.Resampling.LANCZOS)
    factor = cell // longest
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _place(sheet: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    """Paste with a hairline around, so that a white picture still shows where it ends."""
    outline = (left - 1, top - 1, left + picture.width, top + picture.height)
    ImageDraw.Draw(sheet).rectangle(outline, outline=HAIRLINE)
    sheet.paste(picture, (left, top))


def _write(
    draw: ImageDraw.ImageDraw, text: str, font: Font, place: tuple[float, float], column: int, room: int
) -> None:
    """A caption around the middle of its column, from the left end of ``place`` on; a wider one fills the room."""
    left, middle = place
    if font.getlength(_legible(text)) <= column:
        draw.text((left + column / 2, middle), _shorten(text, font, column), INK, font, "mm")
    else:
        draw.text((left, middle), _shorten(text, font, room), INK, font, "lm")


def _line_height(font: Font) -> int:
    _, top, _, bottom = font.getbbox("Ag")
    return round((bottom - top) * 1.7)


def _legible(caption: str) -> str:
    """The caption in letters Pillow's own font has: accents go, other scripts become "?" instead of boxes."""
    parts = unicodedata.normalize("NFKD", caption.replace("\N{MULTIPLICATION SIGN}", "x"))
    letters = (letter for letter in parts if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() or letter in FONT_EXTRAS else "?" for letter in letters)


def _shorten(caption: str, font: Font, width: int) -> str:
    """The caption, or as much of its two ends as fits into ``width`` around an ellipsis."""
    caption = " ".join(_legible(caption).split())
    if font.getlength(caption) <= width:
        return caption
    for kept in range(len(caption) - 1, 0, -1):
        short = caption[: (kept + 1) // 2] + ELLIPSIS + caption[len(caption) - kept // 2 :]
        if font.getlength(short) <= width:
            return short
    return ELLIPSIS if font.getlength(ELLIPSIS) <= width else ""
