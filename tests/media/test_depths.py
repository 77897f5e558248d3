"""Every depth and meaning of pixels: equal to its 8-bit reference, or refused in words."""

import io
import itertools
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from grncli.media.clip_decoding import ffmpeg
from grncli.media.images import open_image
from grncli.runtime.errors import MediaError

WIDTH, HEIGHT = 7, 5
LAB = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
GREY = np.round(np.linspace(0, 255, WIDTH * HEIGHT)).astype(np.uint8).reshape(HEIGHT, WIDTH)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
ALPHA = GREY.T.reshape(HEIGHT, WIDTH)


def over_white(colour, alpha=ALPHA):
    """Straight alpha over white in real numbers."""
    colour = colour if colour.ndim == 3 else np.repeat(colour[..., None], 3, -1)
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def outcome(data, **options):
    """Pixels as int, or None where the picture was refused in words."""
    try:
        return np.asarray(open_image(io.BytesIO(data), **options)).astype(int)
    except MediaError:
        return None


def is_right(found, expected, levels=255):
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    # Half a step of the depth of the file, and one of ours.
    return found.shape == expected.shape and np.abs(found - expected).max() <= 127.5 / levels + 1.01


def packed(samples, bits, order):
    """Rows of ``samples`` [H, N], values of 0 to 1, as a file has them."""
    values = np.round(samples * ((1 << bits) - 1)).astype(np.uint64)
    if bits in (8, 16, 32):
        return values.astype(f"{order}u{bits // 8}").tobytes()
    ones = (values[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & 1
    return np.packbits(ones.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def tiff(data, bits, photometric, *, order="<", channels=1, extra=None, sample_format=1, planes=1, colormap=None,
         deflate=False):  # fmt: skip
    """A TIFF of one strip, or one for each plane."""
    strips = [data[len(data) // planes * plane :][: len(data) // planes] for plane in range(planes)]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    fields = {
        256: WIDTH,
        257: HEIGHT,
        258: [bits] * channels,
        259: 8 if deflate else 1,
        262: photometric,
        277: channels,
        278: HEIGHT,
    }
    fields |= {284: 2 if planes > 1 else 1, 339: [sample_format] * channels}
    if extra is not None:
        fields[338] = extra
    if colormap is not None:
        fields[320] = colormap
    fields |= {279: [len(strip) for strip in strips], 273: [0] * planes}
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    at, room = 8 + 2 + 12 * len(fields) + 4, b""
    for tag in (258, 279, 320, 339):
        values = fields.get(tag)
        if isinstance(values, list) and len(values) * (4 if tag == 279 else 2) > 4:
            fields[tag] = (at + len(room), values)
            room += struct.pack(f"{order}{len(values)}{'I' if tag == 279 else 'H'}", *values)
    offsets = [at + len(room) + (4 * planes if planes > 1 else 0)]
    for strip in strips[:-1]:
        offsets.append(offsets[-1] + len(strip))
    fields[273] = (at + len(room), offsets) if planes > 1 else offsets
    room += struct.pack(f"{order}{planes}I", *offsets) if planes > 1 else b""
    entries = b""
    for tag, value in sorted(fields.items()):
        wide = tag in (256, 257, 273, 278, 279)
        code = "I" if wide else "H"
        if isinstance(value, tuple):
            body, count = struct.pack(order + "I", value[0]), len(value[1])
        else:
            values = value if isinstance(value, list) else [value]
            body, count = struct.pack(f"{order}{len(values)}{code}", *values).ljust(4, b"\0"), len(values)
        entries += struct.pack(order + "HHI", tag, 4 if wide else 3, count) + body
    return head + struct.pack(order + "H", len(fields)) + entries + bytes(4) + room + b"".join(strips)


KEPT = {(1, 0), (1, 1), (2, 0), (2, 1), (4, 0), (4, 1), (8, 0), (8, 1), (16, 1)}
"""Depth and photometric interpretation of grey TIFFs that are read in both byte orders."""


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "photometric"), list(itertools.product((1, 2, 4, 8, 12, 16, 32), (0, 1))))
def test_grey_tiff_of_any_depth(bits, photometric, order):
    levels = (1 << bits) - 1
    stored = GREY / 255 if photometric else 1 - GREY / 255
    found = outcome(tiff(packed(stored, bits, order), bits, photometric, order=order))
    assert found is not None or (bits, photometric) not in KEPT
    assert found is None or is_right(found, GREY, levels)


def test_the_depths_that_pillow_has_only_for_one_byte_order_are_read():
    assert outcome(tiff(packed(1 - GREY / 255, 16, "<"), 16, 0)) is not None
    assert outcome(tiff(packed(GREY / 255, 12, "<"), 12, 1)) is not None


@pytest.mark.parametrize("compression", ["raw", "lzw"])
@pytest.mark.parametrize("layout", ["yuv444p", "yuv420p", "rgb48le", "rgba64le", "gray16le"])
def test_tiffs_of_another_program(layout, compression):
    command = [ffmpeg(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "32x16", "-i", "-"]
    command += ["-pix_fmt", layout, "-compression_algo", compression, "-c:v", "tiff", "-f", "image2pipe", "-"]
    colour = np.full((16, 32, 3), (200, 90, 40), np.uint8)
    data = subprocess.run(command, input=colour.tobytes(), check=True, capture_output=True).stdout
    found = outcome(data)
    if layout == "gray16le":
        colour[:] = np.asarray(Image.fromarray(colour).convert("L"))[..., None]
    # Without compression, YCbCr at half resolution is refused, and some versions of Pillow do not read the other.
    assert found is not None or ("yuv" in layout and compression == "raw")
    assert found is None or (layout, compression) != ("yuv420p", "raw")
    assert found is None or np.abs(found - colour).max() <= 4


def test_a_tiff_without_all_its_strips_is_refused():
    data = bytearray(tiff(packed(GREY / 255, 8, "<"), 8, 1))
    at = data.index(struct.pack("<HHI", 257, 4, 1)) + 8
    data[at : at + 4] = struct.pack("<I", HEIGHT + 1)
    with pytest.raises(MediaError, match="holds strips for 35 of 42 pixels"):
        open_image(io.BytesIO(data))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "sample_format"), [(8, 2), (16, 2), (32, 2), (32, 3), (8, 4), (16, 3)])
def test_tiffs_of_numbers_without_a_white_are_refused(bits, sample_format, order):
    for photometric in (0, 1):
        data = tiff(packed(GREY / 255, bits, order), bits, photometric, order=order, sample_format=sample_format)
        assert outcome(data) is None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("kind", ["LA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "CMYKA"])
def test_tiff_of_several_channels(kind, bits, planes, order):
    photometric = 1 if kind == "LA" else 5 if "CMYK" in kind else 2
    colour = GREY[..., None] if kind == "LA" else RGB
    extra, expected = None, RGB
    if "CMYK" in kind:
        colour = np.dstack([255 - RGB, np.zeros_like(GREY)])
    if kind[-1] in "AaX":
        extra = {"A": 2, "a": 1, "X": 0}[kind[-1]]
        colour = np.dstack([colour * (ALPHA[..., None] / 255) if kind[-1] == "a" else colour, ALPHA])
        expected = expected if kind[-1] == "X" else over_white(GREY if kind == "LA" else RGB)
    channels = colour.shape[2]
    rows = np.moveaxis(colour, 2, 0).reshape(channels * HEIGHT, WIDTH) if planes else colour.reshape(HEIGHT, -1)
    data = tiff(packed(rows / 255, bits, order), bits, photometric, order=order, channels=channels, extra=extra,
                planes=channels if planes else 1)  # fmt: skip
    found = outcome(data)
    if (kind in ("RGB", "RGBA") or (kind in ("RGBX", "CMYK") and not planes)) and bits < 32:
        assert found is not None
    if kind == "RGBa" and found is not None:
        # Where almost nothing shows, little of the colour is left.
        visible = ALPHA > 25
        assert np.abs(found - expected)[visible].max() <= 12
    elif found is not None:
        assert is_right(found, expected)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "extra"), [(2, 2), (3, None), (4, 0), (4, 1), (4, 2)])
def test_compressed_planes_of_a_tiff_are_right_or_refused(channels, extra, bits, order):
    alpha = ALPHA if extra else np.full_like(ALPHA, 255)
    colour = (GREY[..., None] if channels == 2 else RGB) * (alpha[..., None] / 255 if extra == 1 else 1)
    planes = np.moveaxis(np.dstack([colour, ALPHA])[..., :channels], 2, 0).reshape(-1, WIDTH)
    data = tiff(packed(planes / 255, bits, order), bits, 1 if channels == 2 else 2, order=order, channels=channels,
                extra=extra, planes=channels, deflate=True)  # fmt: skip
    found = outcome(data)
    assert (found is None) == (channels == 2)
    if found is not None:
        visible = alpha > 25
        assert np.abs(found - over_white(RGB, alpha))[visible].max() <= (12 if extra == 1 else 1)
        assert extra == 0 or outcome(data[:-20]) is None


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "LA", "I;16", "I;16B", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I", "LAB"]
)
def test_compressed_tiff_of_any_mode(mode, compression):
    image, expected = Image.fromarray(GREY), GREY
    if mode == "1":
        image, expected = image.point(lambda v: 255 * (v > 127)).convert("1"), np.where(GREY > 127, 255, 0)
    elif mode.startswith("I;16"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        image = Image.frombytes(mode, (WIDTH, HEIGHT), (GREY.astype(np.uint16) * 257).astype(kind).tobytes())
    elif mode == "LA":
        image, expected = Image.merge("LA", [image, Image.fromarray(ALPHA)]), over_white(GREY)
    elif mode == "RGBA":
        image, expected = Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB)
    elif mode == "LAB":
        image, expected = ImageCms.profileToProfile(Image.fromarray(RGB), *LAB, outputMode="LAB"), RGB
    elif mode != "L":
        colour = mode in ("RGB", "CMYK", "YCbCr")
        image, expected = (Image.fromarray(RGB) if colour else image).convert(mode), RGB if colour else GREY
    stream = io.BytesIO()
    try:
        image.save(stream, "TIFF", compression=compression)
    except (OSError, KeyError):
        pytest.skip("Pillow does not write it")
    found = outcome(stream.getvalue())
    # Whether there is a way back from LAB is a question of the version of Pillow.
    assert mode == "LAB" or (found is None) == (mode in ("F", "I"))
    if found is not None:
        allowed = {"YCbCr": 3, "LAB": 40}.get(mode, 1)
        assert np.abs(found - np.broadcast_to(np.atleast_3d(expected), found.shape)).max() <= allowed


@pytest.mark.parametrize("scale", [1, 257])
@pytest.mark.parametrize(("bits", "order"), list(itertools.product((1, 2, 4, 8), "<>")))
def test_tiff_palettes_of_8_and_16_bits(bits, order, scale):
    count = 1 << bits
    index = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % count
    palette = np.random.default_rng(0).integers(0, 256, (3, count))
    data = tiff(
        packed(index / (count - 1), bits, order), bits, 3, order=order, colormap=(palette * scale).ravel().tolist()
    )
    assert np.array_equal(outcome(data), np.moveaxis(palette[:, index], 0, -1))


def png(samples, bits, colour, *, transparent=None, palette=None):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = packed(samples.reshape(HEIGHT, -1), bits, ">")
    length = len(rows) // HEIGHT
    raw = b"".join(b"\0" + rows[row * length :][:length] for row in range(HEIGHT))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour, 0, 0, 0))
    data += chunk(b"PLTE", palette) if palette is not None else b""
    data += chunk(b"tRNS", transparent) if transparent is not None else b""
    return data + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_png_and_its_transparent_value(bits):
    levels = (1 << bits) - 1
    values = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % (levels + 1)
    if bits == 16:
        # Two values that 8 bits do not tell apart, and only one of them is transparent.
        values[0, :3] = 1000, 1001, 65535
    shown = values * 255 / levels
    assert is_right(outcome(png(values / levels, bits, 0)), shown)
    key = int(values[0, 1])
    found = outcome(png(values / levels, bits, 0, transparent=struct.pack(">H", key)))
    assert is_right(found, np.where(values == key, 255, shown))


@pytest.mark.parametrize("bits", [8, 16])
def test_colour_png_and_its_transparent_colour(bits):
    levels = (1 << bits) - 1
    values = np.round(RGB / 255 * levels).astype(int)
    if bits == 16:
        values[0, :3] = [[1000, 2000, 3000], [1000, 2001, 3000], [65535, 0, 255]]
    assert is_right(outcome(png(values / levels, bits, 2)), values * 255 / levels)
    found = outcome(png(values / levels, bits, 2, transparent=struct.pack(">3H", *values[0, 1].tolist())))
    clear = (values == values[0, 1]).all(-1)
    assert clear.sum() == 1
    assert is_right(found, np.where(clear[..., None], 255, values * 255 / levels))


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_an_alpha_channel(bits):
    assert is_right(outcome(png(np.dstack([GREY, ALPHA]) / 255, bits, 4)), over_white(GREY))
    assert is_right(outcome(png(np.dstack([RGB, ALPHA]) / 255, bits, 6)), over_white(RGB))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palette_png_and_its_transparency(bits):
    count = 1 << bits
    index = np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % count
    palette = np.random.default_rng(0).integers(0, 256, (count, 3), np.uint8)
    alpha = np.full(count, 255, np.uint8)
    alpha[:2] = 0, 100
    data = png(index / (count - 1), bits, 3, palette=palette.tobytes(), transparent=alpha[:2].tobytes())
    assert is_right(outcome(data), over_white(palette[index], alpha[index]))


@pytest.mark.parametrize("maximum", [1, 7, 15, 100, 255, 256, 1023, 4095, 65535])
@pytest.mark.parametrize("magic", ["P2", "P3", "P5", "P6"])
def test_pnm_of_any_maximum(magic, maximum):
    shown = RGB if magic in ("P3", "P6") else GREY
    values = np.round(shown / 255 * maximum).astype(int)
    header = f"{magic}\n# a comment\n{WIDTH} {HEIGHT}\n{maximum}\n".encode()
    if magic in ("P2", "P3"):
        body = b"# another\n" + " ".join(map(str, values.ravel())).encode() + b"\n"
    else:
        body = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    assert is_right(outcome(header + body), values * 255 / maximum)
    with pytest.raises(MediaError, match="truncated"):
        open_image(io.BytesIO(header + body[: len(body) // 2]))


def test_pnm_of_one_bit_and_of_floats():
    black = GREY < 128
    header = f"{WIDTH} {HEIGHT}\n".encode()
    plain = b" ".join(b"%d" % bit for bit in black.ravel().tolist())
    for data in (b"P1\n" + header + plain, b"P4\n" + header + np.packbits(black, axis=1).tobytes()):
        assert np.array_equal(outcome(data)[..., 0], np.where(black, 0, 255))
    assert outcome(b"Pf\n" + header + b"-1.0\n" + GREY.astype("<f4").tobytes()) is None


@pytest.mark.parametrize("body", [b"1 2 x 4", b"1 2 3 -4", b"1 2 3 999", b""])
def test_plain_pnm_of_other_things_is_refused(body):
    assert outcome(b"P2 2 2 255\n" + body) is None
    assert outcome(b"P2 2 2 100\n" + body) is None


def jpeg_2000(layout, samples, kind):
    command = [ffmpeg(), "-v", "error", "-f", "rawvideo", "-pix_fmt", layout, "-s", "32x16", "-i", "-"]
    command += ["-c:v", "jpeg2000", "-pred", "1", "-f", "image2pipe", "-"]
    return subprocess.run(command, input=samples.astype(kind).tobytes(), check=True, capture_output=True).stdout


@pytest.mark.parametrize(("layout", "bits"), [("gray", 8), ("gray10le", 10), ("gray12le", 12), ("gray16le", 16)])
def test_grey_jpeg_2000_of_any_depth(layout, bits):
    values = np.round(np.linspace(0, (1 << bits) - 1, 512)).reshape(16, 32)
    data = jpeg_2000(layout, values, "<u2" if bits > 8 else "u1")
    assert np.abs(outcome(data)[..., 1] - values * 255 / ((1 << bits) - 1)).max() <= 1


@pytest.mark.parametrize(("layout", "bits"), [("rgb24", 8), ("rgba", 8), ("rgb48le", 16), ("rgba64le", 16)])
def test_colour_jpeg_2000_is_right_or_refused(layout, bits):
    bands = 4 if "a" in layout else 3
    values = np.full((16, 32, bands), (1 << bits) - 1)
    values[:8, :, 0] = 0
    found = outcome(jpeg_2000(layout, values, "<u2" if bits > 8 else "u1"))
    assert (found is None) == (bits > 8)
    assert found is None or np.array_equal(found, values[..., :3])


@pytest.mark.parametrize("bits", range(1, 9))
def test_jpeg_2000_of_few_bits_has_a_white(bits):
    values = (np.arange(256) % (1 << bits)).astype(np.uint8).reshape(16, 16)
    stream = io.BytesIO()
    # Pillow writes 8 bits only. Numbers are stored less half of their range, so that the same ones around
    # another half belong to another depth in the header.
    Image.fromarray(values + np.uint8(128 - (1 << bits - 1))).save(stream, "JPEG2000", no_jp2=True)
    data = bytearray(stream.getvalue())
    data[data.index(b"\xff\x51") + 40] = bits - 1
    assert is_right(outcome(data), values * (255 / ((1 << bits) - 1)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "P"])
@pytest.mark.parametrize(
    "format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "TGA", "QOI", "JPEG2000", "AVIF", "PPM"]
)
def test_every_format_with_every_mode_that_it_has(mode, format):
    big = {"LA": GREY, "L": GREY}.get(mode, RGB)
    expected = big
    if mode in ("LA", "RGBA"):
        image, expected = Image.fromarray(np.dstack([big, ALPHA]), mode), over_white(big)
    else:
        image = Image.fromarray(big)
        image = image.convert(mode) if mode != "P" else image.quantize(256)
        expected = np.asarray(image.convert("RGB"))
    if format in ("JPEG", "AVIF", "GIF"):
        # What is lossy needs flat and large areas, what has one transparent colour shows all or nothing of it.
        image = image.resize((WIDTH * 16, HEIGHT * 16), Image.Resampling.NEAREST)
        expected = np.kron(np.atleast_3d(expected), np.ones((16, 16, 1)))
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format in ("JPEG", "AVIF") else {}
    options |= {"subsampling": 0} if format == "JPEG" else {"subsampling": "4:4:4"} if format == "AVIF" else {}
    stream = io.BytesIO()
    try:
        image.save(stream, format, **options)
    except (OSError, ValueError, KeyError):
        pytest.skip("Pillow does not write it")
    if format in ("PPM", "GIF", "BMP") and mode in ("LA", "RGBA"):
        pytest.skip("the format does not keep alpha")
    found = outcome(stream.getvalue(), suffix="tga" if format == "TGA" else "")
    allowed = {"JPEG": 6, "AVIF": 12, "GIF": 60, "WEBP": 2}.get(format, 1)
    assert np.abs(found - np.broadcast_to(np.atleast_3d(expected), found.shape)).max() <= allowed


@pytest.mark.parametrize("transform", [0, 2])
def test_cmyk_jpeg_of_adobe_is_read_with_and_without_its_colour_transform(transform):
    # Both ways Adobe stores 255 minus the ink. Pillow writes no transform; ffmpeg has no CMYK at all.
    stream = io.BytesIO()
    image = Image.new("CMYK", (16, 16), (200, 100, 50, 20))
    image.save(stream, "JPEG", quality=100)
    data = bytearray(stream.getvalue())
    at = data.index(b"Adobe")
    assert data[at + 11] == 0
    expected = np.array(image.convert("RGB").getpixel((0, 0)))
    data[at + 11] = transform
    if transform:
        # YCCK: what is stored as inverted C, M, Y is read as Y, Cb, Cr of the inverted C, M, Y.
        y, cb, cr = 255 - 200, 255 - 100 - 128, 255 - 50 - 128
        inverted = np.array([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])
        inks = 255 - np.clip(np.round(255 - inverted), 0, 255).astype(int)
        expected = np.array(Image.new("CMYK", (1, 1), (*inks.tolist(), 20)).convert("RGB").getpixel((0, 0)))
    found = outcome(bytes(data))
    assert np.abs(found[8, 8] - expected).max() <= 3


def tga(depth, pixels, attributes, *, kind=2):
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, 2, 1, depth, 0x20 | attributes)
    return header + pixels


def test_tga_alpha_that_is_nowhere_set_is_no_transparency():
    clear = bytes([1, 2, 3, 0, 4, 5, 6, 0])
    half = bytes([1, 2, 3, 0, 4, 5, 6, 255])
    white = [255, 255, 255]
    assert outcome(tga(32, clear, 0), suffix="tga")[0].tolist() == [[3, 2, 1], [6, 5, 4]]
    assert outcome(tga(32, clear, 8), suffix="tga")[0].tolist() == [white, white]
    assert outcome(tga(32, half, 0), suffix="tga")[0].tolist() == [white, [6, 5, 4]]
    for attributes in (0, 1):
        pixels = struct.pack("<HH", 0x7C00, 0x83E0)
        assert outcome(tga(16, pixels, attributes), suffix="tga")[0].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_tga_is_read_only_under_its_own_suffix():
    data = tga(24, bytes(6), 0)
    assert outcome(data, suffix="tga") is not None
    with pytest.raises(MediaError, match="is not a PNG"):
        open_image(io.BytesIO(data), suffix="png")


@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_another_format_under_the_suffix_of_tga_is_read(format):
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, format)
    assert outcome(stream.getvalue(), suffix="tga") is not None
