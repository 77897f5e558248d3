import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, features

from grncli.media import images
from grncli.media.images import is_animation, open_image
from grncli.runtime.errors import MediaError

AVIF = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    stream.seek(0)
    return stream


def read(image, format="PNG", **options):
    result = open_image(saved(image, format, **options))
    assert result.mode == "RGB"
    return np.asarray(result)


def rgba(*colours):
    return Image.fromarray(np.array([colours], np.uint8), "RGBA")


def test_rgb_is_kept():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    for format in ("PNG", "BMP", "TIFF"):
        assert np.array_equal(read(Image.fromarray(pixels), format), pixels)
    assert np.array_equal(read(Image.fromarray(pixels), "WEBP", lossless=True), pixels)


def test_transparency_lies_over_white():
    found = read(rgba((255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128), (10, 200, 30, 51)))
    assert found[0].tolist() == [[255, 0, 0], [255, 255, 255], [127, 127, 127], [206, 244, 210]]


def test_grey_with_transparency_lies_over_white():
    image = Image.fromarray(np.array([[[0, 0], [0, 255], [100, 255]]], np.uint8), "LA")
    assert read(image)[0, :, 1].tolist() == [255, 0, 100]


def test_palette_colours_come_out():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([1, 2, 3, 40, 50, 60, 200, 210, 220])
    assert read(image)[0].tolist() == [[1, 2, 3], [40, 50, 60], [200, 210, 220]]


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([1, 2, 3, 40, 50, 60])
    assert read(image, transparency=0)[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    assert read(image, "GIF", transparency=0)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_a_transparent_colour_is_white():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert read(image, transparency=(1, 2, 3))[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_one_bit_is_black_and_white():
    assert read(Image.fromarray(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize(("kind", "format"), [("<u2", "PNG"), ("<u2", "TIFF"), (">u2", "TIFF")])
def test_sixteen_bits_are_scaled_not_clipped(kind, format):
    values = np.array([[0, 128, 129, 257, 32896, 65406, 65407, 65535]], kind)
    mode = "I;16B" if kind == ">u2" else "I;16"
    image = Image.frombytes(mode, (8, 1), values.tobytes())
    assert read(image, format)[0, :, 2].tolist() == [0, 0, 1, 1, 128, 254, 255, 255]


@pytest.mark.parametrize("format", ["TIFF", "JPEG"])
def test_cmyk_is_not_inverted(format):
    # Flat colour survives JPEG up to rounding; Pillow writes Adobe's inverted CMYK and undoes it.
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    found = read(image, format)[8, 8].astype(int)
    assert np.abs(found - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize(("mode", "words"), [("F", "floating point"), ("I", "32-bit")])
def test_ranges_without_meaning_are_refused(mode, words):
    with pytest.raises(MediaError, match=words):
        read(Image.new(mode, (4, 4)), "TIFF")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation_is_applied(orientation, format):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = 255
    # What has to be stored so that the viewer's correction gives `upright`.
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    if orientation > 1:
        image = image.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read(image, format, exif=exif)
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= 2


def test_a_truncated_jpeg_is_an_error():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(Image.fromarray(pixels), "JPEG").getvalue()
    with pytest.raises(MediaError, match="truncated"):
        open_image(io.BytesIO(data[: len(data) // 2]))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"\xff\xd8\xff\xe0"])
def test_what_is_no_image_is_an_error(data):
    with pytest.raises(MediaError):
        open_image(io.BytesIO(data))


def test_postscript_named_png_starts_nothing(tmp_path):
    path = tmp_path / "trick.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(MediaError, match="is not a PNG"):
        open_image(str(path))


def test_a_huge_image_is_refused_from_its_header():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(MediaError, match=r"3,600,000,000 pixels; at most 178,956,970"):
        open_image(io.BytesIO(data))


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


BOMB = zlib.compress(bytes(20 << 20), 9)


@pytest.mark.parametrize(
    ("kind", "body", "times"),
    [
        (b"zTXt", b"key\0\0" + BOMB, 100),
        (b"iTXt", b"key\0\1\0\0\0" + BOMB, 100),
        (b"iCCP", b"key\0\0" + BOMB, 100),
        # Each within what one text may be, all of them more than all may.
        (b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 20), 9), 100),
        (b"tEXt", b"key\0" + bytes(1 << 20), 70),
        (b"eXIf", b"MM\0\x2a" + bytes([0xFF] * 1000), 100),
        (b"prVt", bytes(1 << 20), 20),
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_texts_and_profiles_of_a_png_cannot_take_much_memory(kind, body, times, place):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    data = saved(Image.fromarray(pixels), "PNG").getvalue()
    at = data.index(b"IDAT" if place == "before" else b"IEND") - 4
    data = data[:at] + png_chunk(kind, body) * times + data[at:]
    tracemalloc.start()
    try:
        found = open_image(io.BytesIO(data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert np.array_equal(np.asarray(found), pixels)
    assert peak < 2.5 * len(data) + (100 << 20)


def test_xmp_says_which_way_is_up_even_behind_a_bomb():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6)
    data = saved(Image.fromarray(pixels), "PNG").getvalue()
    at = data.index(b"IDAT") - 4
    xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'<x tiff:Orientation="3"/>')
    data = data[:at] + xmp + png_chunk(b"zTXt", b"key\0\0" + BOMB) + data[at:]
    assert np.array_equal(np.asarray(open_image(io.BytesIO(data)))[..., 0], pixels[::-1, ::-1])


@pytest.mark.parametrize("format", ["PNG", "WEBP", pytest.param("AVIF", marks=AVIF)])
def test_of_an_animation_the_first_frame_is_read(format):
    frames = [Image.new("RGB", (16, 16), (40 * n, 10, 200)) for n in range(6)]
    stream = saved(frames[0], format, save_all=True, append_images=frames[1:])
    assert not is_animation(stream)
    assert np.abs(np.asarray(open_image(stream)).astype(int) - (0, 10, 200)).max() <= 12


def test_of_a_jpeg_with_several_pictures_the_first_is_read():
    frames = [Image.new("RGB", (16, 16), (0, 200 * n, 200)) for n in range(2)]
    stream = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(np.asarray(open_image(stream)).astype(int) - (0, 0, 200)).max() <= 3


@AVIF
def test_a_format_without_a_decoder_is_said_so(monkeypatch):
    data = saved(Image.new("RGB", (16, 16)), "AVIF").getvalue()
    with monkeypatch.context() as patch:
        # Pillow before 11.3.
        patch.delitem(images._PLUGINS, "AVIF")
        patch.setattr(images, "FORMATS", [name for name in images.FORMATS if name != "AVIF"])
        with pytest.raises(MediaError, match=r"format AVIF that cannot be read: .*no decoder"):
            open_image(io.BytesIO(data))
    # A later one, built without the library.
    monkeypatch.setattr(images.AvifImagePlugin, "SUPPORTED", False)
    with pytest.raises(MediaError, match=r"format AVIF that cannot be read: .*AVIF support not installed"):
        open_image(io.BytesIO(data))


def test_no_plugin_is_imported_at_the_first_odd_file():
    code = (
        "import io, sys; from grncli.media.images import open_image\n"
        "before = set(sys.modules)\n"
        "for head in (b'', b'II*\\0', b'\\xff\\xd8\\xff', b'%!PS-Adobe', b'P6 ', b'\\0' * 600):\n"
        "    try: open_image(io.BytesIO(head))\n"
        "    except Exception: pass\n"
        "print([name for name in set(sys.modules) - before if name.endswith('Plugin')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_a_path_that_is_no_plain_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    for path, reason in (
        (tmp_path / "a.png", "not a plain file"),
        ("/dev/zero", "not a plain file"),
        (tmp_path / "b", "No such"),
    ):
        with pytest.raises(MediaError, match=reason):
            open_image(str(path))


def test_a_gif_is_a_clip_from_five_frames_on():
    frames = [Image.new("L", (8, 8), 20 * i) for i in range(5)]
    four = saved(frames[0], "GIF", save_all=True, append_images=frames[1:4])
    five = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert not is_animation(four)
    assert is_animation(five)
    assert np.asarray(open_image(five)).max() == 0
    assert not is_animation(saved(frames[0], "PNG"))


def test_a_reduced_jpeg_is_no_smaller_than_asked():
    stream = saved(Image.new("RGB", (640, 400), (200, 30, 90)), "JPEG")
    image = open_image(stream, at_least=100)
    assert image.size == (160, 100)
    assert np.abs(np.asarray(image).astype(int) - (200, 30, 90)).max() <= 3
