import numpy as np
import pytest
from PIL import Image

from grncli.media.framing import frame_array, frame_image, parse_size
from grncli.runtime.errors import MediaError, UsageError

STRIDE = (4, 16, 16)


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def adm_center_crop(image, size):
    """The formulation of guided-diffusion, written down independently."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    pixels = np.array(image)
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    return pixels[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (37, 91), (300, 131), (127, 128), (20, 30), (513, 130)])
def test_square_equals_the_adm_crop(size):
    image = noise(*size)
    assert np.array_equal(np.asarray(frame_image(image, parse_size("64"), STRIDE)), adm_center_crop(image, 64))


@pytest.mark.parametrize("size", [(100, 80), (31, 200), (48, 32), (47, 32)])
def test_cover_fills_the_size_without_borders(size):
    image = Image.new("RGB", size, (9, 8, 7))
    framed = np.asarray(frame_image(image, parse_size("32x48"), STRIDE))
    assert framed.shape == (32, 48, 3)
    assert (framed == (9, 8, 7)).all()


def test_native_crops_the_centre_to_whole_tokens():
    image = noise(37, 50)
    framed = np.asarray(frame_image(image, parse_size("native"), STRIDE))
    assert np.array_equal(framed, np.asarray(image)[1:49, 2:34])


def test_native_refuses_what_is_smaller_than_a_token():
    with pytest.raises(MediaError, match="is 1x1 pixels, smaller than one token of 16x16"):
        frame_image(noise(1, 1), parse_size("native"), STRIDE)


def test_a_sliver_is_refused_before_it_is_blown_up():
    with pytest.raises(MediaError, match="too narrow"):
        frame_image(Image.new("RGB", (1, 50_000)), parse_size("512"), STRIDE)


@pytest.mark.parametrize("size", ["16", "32x48", "native"])
def test_frames_are_framed_like_images(size):
    frames = np.stack([np.asarray(noise(50, 40, seed)) for seed in range(3)])
    for frame in frames:
        framed = frame_array(frame, parse_size(size), STRIDE)
        assert np.array_equal(framed, np.asarray(frame_image(Image.fromarray(frame), parse_size(size), STRIDE)))


@pytest.mark.parametrize("text", ["256", "480x832", "native"])
def test_a_size_reads_back_as_it_was_written(text):
    assert str(parse_size(text)) == text


@pytest.mark.parametrize("text", ["", "0", "-1", "12.5", "480X832", "480x", "x480", "1e3", "480x832x3", "٣٢", "big"])
def test_nonsense_sizes_are_refused(text):
    with pytest.raises(UsageError):
        parse_size(text)
