import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from grncli.media.budgets import Budget
from grncli.media.framing import budget_framing, frame_array, frame_image, parse_size
from grncli.models.aspect_ratios import TEMPLATES
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


SMALL_STRIDE = (2, 4, 4)
SMALL = budget_framing(32 * 32)
sides = st.integers(1, 400)


def framed_by(framing, image, stride=SMALL_STRIDE):
    return np.asarray(frame_image(image, framing, stride))


@given(sides, sides, st.sampled_from([1, 4, 8, 16]), st.integers(16 * 16, 64 * 64))
def test_a_budget_gives_every_picture_the_nearest_of_its_ratios(height, width, side, pixels):
    framed = framed_by(budget_framing(pixels), Image.new("RGB", (width, height), (9, 8, 7)), (2, side, side))
    nearest = min(TEMPLATES, key=lambda template: abs(template - height / width))
    rows, columns = Budget(pixels).grids(side)[nearest]
    assert framed.shape == (rows * side, columns * side, 3)
    assert (framed == (9, 8, 7)).all()  # no borders


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        (36, 28, slice(0, 36), slice(0, 28)),  # 9x7 tokens, as large as they are
        (36, 31, slice(0, 36), slice(1, 29)),  # 1.16 is nearest to 1.161: as many tokens, and 3 columns too many
        (28, 36, slice(0, 28), slice(0, 36)),
        (31, 36, slice(1, 29), slice(0, 36)),
        (32, 33, slice(0, 32), slice(0, 32)),
    ],
)
def test_a_budget_keeps_the_centre(height, width, rows, columns):
    image = noise(width, height)
    assert np.array_equal(framed_by(SMALL, image), np.asarray(image)[rows, columns])


@pytest.mark.parametrize("size", [(100, 80), (31, 200), (20, 20), (500, 499)])
def test_a_budget_scales_as_a_size_does(size):
    image = noise(*size)
    framed = framed_by(SMALL, image)
    assert np.array_equal(framed, framed_by(parse_size(f"{framed.shape[0]}x{framed.shape[1]}"), image))


@pytest.mark.parametrize(
    ("framing", "height", "width", "enlarged"),
    [
        (SMALL, 32, 32, False),
        (SMALL, 31, 33, True),
        (SMALL, 36, 28, False),
        (SMALL, 35, 28, True),
        (parse_size("16"), 15, 99, True),
        (parse_size("16x32"), 16, 31, True),
        (parse_size("16x32"), 16, 32, False),
        (parse_size("native"), 5, 5, False),
    ],
)
def test_a_picture_that_is_scaled_up_is_known(framing, height, width, enlarged):
    assert framing.enlarges(height, width, SMALL_STRIDE) is enlarged
