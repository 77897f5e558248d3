"""Files that end early: taken with a note where every pixel is there, refused where one is not."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from grncli.media.images import ImageDecoder, open_image
from grncli.runtime.errors import MediaError

AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
NOTE = "the file ends before its end marker; every pixel is there"
PIXELS = np.array(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)).resize(
        (76, 50), Image.Resampling.BICUBIC
    )
)


def saved(format, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, format, **options)
    return stream.getvalue()


def decoded(data):
    image, note = ImageDecoder().decode(io.BytesIO(data))
    return np.asarray(image), note


JPEGS = [
    {},
    {"progressive": True},
    {"optimize": True, "subsampling": 0},
    {"quality": 100},
    {"restart_marker_rows": 1},
    {"progressive": True, "restart_marker_blocks": 3},
    {"streamtype": 0},
]


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_without_its_end_marker_is_taken_with_a_note(options):
    data = saved("JPEG", **options)
    whole, note = decoded(data)
    assert note is None
    assert data[-2:] == b"\xff\xd9"
    for short in (data[:-1], data[:-2], data[:-2] + b"\xff\xff"):
        pixels, note = decoded(short)
        assert np.array_equal(pixels, whole)
        assert note == NOTE


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_without_all_its_pixels_is_refused(options):
    data = saved("JPEG", **options)
    whole, _ = decoded(data)
    taken = []
    for cut in [*range(3, 12), *range(12, len(data) - 700, 23)]:
        try:
            pixels, _ = decoded(data[:-cut])
        except MediaError:
            continue
        taken.append(cut)
        assert np.array_equal(pixels, whole)
    # The last byte or two may hold nothing that shows.
    assert max(taken, default=0) < 8


def test_a_progressive_jpeg_without_all_its_scans_is_refused():
    data = saved("JPEG", progressive=True)
    starts = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) > 5
    for start in starts[1:]:
        with pytest.raises(MediaError, match="truncated"):
            decoded(data[:start])


def test_a_jpeg_without_its_end_marker_is_taken_for_crops():
    data = saved("JPEG")
    small = open_image(io.BytesIO(data[:-2]), at_least=20)
    assert small.size == (38, 25)
    assert np.array_equal(np.asarray(small), np.asarray(open_image(io.BytesIO(data), at_least=20)))


def test_what_follows_the_end_marker_is_no_fault():
    for format in ("JPEG", "PNG", "GIF"):
        data = saved(format)
        assert decoded(data + b"something")[1] is None


@pytest.mark.parametrize(
    ("format", "options", "marker"),
    [
        ("PNG", {}, 12),
        ("GIF", {}, 1),
        pytest.param("QOI", {}, 8, marks=pytest.mark.skipif("QOI" not in Image.SAVE, reason="this Pillow writes none")),
        ("JPEG2000", {}, 2),
        ("JPEG2000", {"no_jp2": True}, 2),
        ("JPEG2000", {"tile_size": (32, 32)}, 2),
    ],
)
def test_other_formats_without_their_end_marker_are_taken_with_a_note(format, options, marker):
    data = saved(format, **options)
    whole, note = decoded(data)
    assert note is None
    pixels, note = decoded(data[:-marker])
    assert np.array_equal(pixels, whole)
    assert note == NOTE
    for cut in (marker + 25, len(data) // 3, len(data) // 2):
        with pytest.raises(MediaError):
            decoded(data[:-cut])


def test_a_jpeg_2000_of_a_part_with_open_length_is_refused_without_its_end():
    data = bytearray(saved("JPEG2000", no_jp2=True))
    at = data.index(b"\xff\x90\0\x0a") + 6
    data[at : at + 4] = bytes(4)
    assert decoded(bytes(data))[1] is None
    for cut in (2, 500):
        with pytest.raises(MediaError):
            decoded(bytes(data[:-cut]))


@pytest.mark.parametrize("format", ["WEBP", "TIFF", "BMP", "PPM", pytest.param("AVIF", marks=AVIF)])
def test_formats_without_an_end_marker_are_refused_when_cut(format):
    data = saved(format)
    for cut in (1, 20, len(data) // 2):
        with pytest.raises(MediaError):
            decoded(data[:-cut])


def test_a_gif_that_ends_between_its_frames_has_a_note():
    stream = io.BytesIO()
    frames = [Image.fromarray(PIXELS[:, :, n]) for n in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    data = stream.getvalue()
    assert decoded(data)[1] is None
    assert decoded(data[: len(data) * 2 // 3])[1] == NOTE


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_whose_data_end_cleanly_but_too_early_is_refused(interlaced):
    rows = PIXELS[:, :75].copy()
    rows[-1] = 0
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [rows[top::down, left::across] for left, top, across, down in passes] if interlaced else [rows]
    data = [b"\0" + row.tobytes() for part in parts for row in part]
    header = struct.pack(">IIBBBBB", 75, 50, 8, 2, 0, 0, interlaced)

    def png(*bodies):
        chunks = [(b"IHDR", header), *((b"IDAT", body) for body in bodies), (b"IEND", b"")]
        checked = [struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
                   for name, body in chunks]  # fmt: skip
        return b"\x89PNG\r\n\x1a\n" + b"".join(checked)

    packed = zlib.compress(b"".join(data))
    # Pillow does not look at a checksum in a chunk behind the last row.
    for whole in ([packed], [packed[:-4], b"oops"]):
        assert np.array_equal(decoded(png(*whole))[0], rows)
    for cut in (1, 20):
        with pytest.raises(MediaError, match="fewer rows"):
            decoded(png(zlib.compress(b"".join(data[:-cut]))))
