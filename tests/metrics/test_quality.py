"""PSNR, SSIM, MS-SSIM and LPIPS of frames, each beside the definition or another code."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter  # scikit-image brings it along
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from grncli.demo.drawings import draw_image
from grncli.metrics import quality
from grncli.metrics.quality import lpips_metric, mean_over_frames, measure_frames, ms_ssim, psnr, ssim
from grncli.models.lpips import LPIPS
from grncli.runtime.errors import CheckpointError

FIXTURES = os.environ.get("GRN_FIXTURES")
AS_WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales


def noise(n, height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def jitter(pictures, spread, seed=0):
    """Pictures with noise of up to ``spread`` on each value."""
    added = np.random.default_rng(seed).integers(-spread, spread + 1, pictures.shape)
    return (pictures.astype(int) + added).clip(0, 255).astype(np.uint8)


def blurred(pictures, radius):
    return np.stack([np.array(Image.fromarray(p).filter(ImageFilter.GaussianBlur(radius))) for p in pictures])


def shapes(n, size):
    return np.stack([draw_image(0, i, size) for i in range(n)])


def photographs():
    if FIXTURES is None:
        pytest.skip("GRN_FIXTURES is not set: it names the directory with media/images")
    files = sorted((Path(FIXTURES) / "media/images").glob("*.png"))
    return np.stack([np.array(Image.open(file).convert("RGB")) for file in files])


PAIRS = {
    "noise beside other noise": lambda: (noise(2, 24, 31, seed=1), noise(2, 24, 31)),
    "shapes with noise": lambda: (jitter(shapes(3, 64), 12), shapes(3, 64)),
    "shapes blurred": lambda: (blurred(shapes(2, 40), 1.5), shapes(2, 40)),
    "photographs blurred": lambda: (blurred(photographs(), 1), photographs()),
    "photographs with noise": lambda: (jitter(photographs(), 20), photographs()),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """Decoded and original."""
    return PAIRS[request.param]()


def apply(metric, frames, originals):
    return metric(torch.from_numpy(frames), torch.from_numpy(originals))


# PSNR


def test_psnr_is_that_worked_by_hand():
    original = torch.full((1, 2, 2, 3), 100, dtype=torch.uint8)
    frames = original.clone()
    frames[0, 0, 0, 0] += 6
    assert psnr(frames, original).tolist() == [pytest.approx(10 * math.log10(255**2 / (36 / 12)), abs=1e-12)]


def test_psnr_is_scikit_images(pair):
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(*pair, strict=True)]
    assert apply(psnr, *pair).tolist() == pytest.approx(expected, abs=1e-6)


def test_equal_pictures_have_100_db():
    pictures = noise(3, 8, 8)
    assert apply(psnr, pictures, pictures).tolist() == [100] * 3


def test_black_beside_white_has_0_db():
    black = torch.zeros(1, 600, 600, 3, dtype=torch.uint8)
    assert psnr(black, black + 255).item() == pytest.approx(0, abs=1e-6)


# SSIM


def smooth(picture):
    """Gaussian window of 11 pixels; what lies beyond the edge is the picture mirrored."""
    return gaussian_filter(picture, 1.5, truncate=3.5, mode="mirror")


def inner_ssim(frame, original):
    """In float64, with the mean over pixels whose window lies within the picture."""
    each, (c1, c2) = [], ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
    for colour in range(3):
        a, b = (picture[..., colour].astype(float) for picture in (frame, original))
        mean_a, mean_b = smooth(a), smooth(b)
        between, spread = smooth(a * b) - mean_a * mean_b, smooth(a * a) + smooth(b * b) - mean_a**2 - mean_b**2
        index = (2 * mean_a * mean_b + c1) * (2 * between + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
        each.append(index[5:-5, 5:-5])
    return np.mean(each)


def test_ssim_is_that_of_its_formula(pair):
    expected = [inner_ssim(a, b) for a, b in zip(*pair, strict=True)]
    assert apply(ssim, *pair).tolist() == pytest.approx(expected, abs=2e-4)


def test_ssim_is_scikit_images(pair):
    expected = [structural_similarity(a, b, channel_axis=-1, **AS_WANG) for a, b in zip(*pair, strict=True)]
    assert apply(ssim, *pair).tolist() == pytest.approx(expected, abs=1e-3)


def test_ssim_of_bright_and_flat_pictures_does_not_cancel():
    """Variances are differences of large float32 sums there."""
    bright = np.full((1, 48, 48, 3), 250, np.uint8)
    faint = jitter(bright, 1)
    assert apply(ssim, faint, bright).item() == pytest.approx(inner_ssim(faint[0], bright[0]), abs=1e-3)


def test_ms_ssim_is_torchmetrics_of_each_picture():
    originals = shapes(2, 192)[:, :180]
    frames = jitter(blurred(originals, 2), 10)
    metric = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)
    expected = [
        metric(*(torch.from_numpy(p).float().movedim(-1, 0)[None] for p in two)).item()
        for two in zip(frames, originals, strict=True)
    ]
    assert 0.3 < min(expected) < 0.99
    assert apply(ms_ssim, frames, originals).tolist() == pytest.approx(expected, abs=1e-5)


def test_ms_ssim_is_the_product_over_scales():
    """Contrast and structure of four scales and SSIM of the fifth, by scikit-image, each channel apart."""
    original = shapes(1, 180)
    frame = jitter(blurred(original, 1), 8)
    a, b, each = frame[0].astype(float), original[0].astype(float), []
    for scale in range(5):
        maps = [structural_similarity(a[..., c], b[..., c], full=True, **AS_WANG)[1][5:-5, 5:-5] for c in range(3)]
        if scale < 4:
            brightness = [brightness_map(a[..., c], b[..., c])[5:-5, 5:-5] for c in range(3)]
            maps = [full / light for full, light in zip(maps, brightness, strict=True)]
        each.append(np.mean(maps))
        a, b = halved(a), halved(b)
    expected = np.prod(np.power(each, WEIGHTS))
    assert apply(ms_ssim, frame, original).item() == pytest.approx(expected, abs=1e-3)


def brightness_map(a, b):
    mean_a, mean_b = smooth(a), smooth(b)
    c1 = (0.01 * 255) ** 2
    return (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)


def halved(picture):
    height, width = (side // 2 * 2 for side in picture.shape[:2])
    return picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))


@pytest.mark.parametrize(("metric", "side"), [(ssim, 64), (ms_ssim, 192)])
def test_equal_pictures_have_a_similarity_of_one(metric, side):
    pictures = shapes(1, side)
    assert apply(metric, pictures, pictures).tolist() == [pytest.approx(1, abs=1e-6)]


# Sizes


@pytest.mark.parametrize("size", [(10, 40), (40, 10)])
def test_pictures_below_the_window_have_no_ssim(size):
    found = apply(ssim, noise(2, *size), noise(2, *size))
    assert found.isnan().tolist() == [True, True]


def test_the_window_itself_has_an_ssim():
    pictures = noise(2, 11, 11)
    assert apply(ssim, pictures, pictures).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("size", [(160, 200), (200, 160), (16, 16)])
def test_pictures_below_five_scales_have_no_ms_ssim(size):
    found = apply(ms_ssim, noise(2, *size), noise(2, *size))
    assert found.isnan().tolist() == [True, True]


@pytest.mark.parametrize(
    "side",
    [
        pytest.param(
            side,
        )
        for side in (161, 175)
    ]
    + [176],
)
def test_every_size_gives_an_ms_ssim_or_none(side):
    found = apply(ms_ssim, noise(1, side, 180), noise(1, side, 180))
    assert found.shape == (1,)


# Batches


@pytest.mark.parametrize(("metric", "side"), [(psnr, 20), (ssim, 20), (ms_ssim, 180)])
def test_a_batch_has_the_values_of_its_pictures(metric, side):
    originals = noise(3, side, side + 1)
    frames = np.stack([jitter(picture, spread, seed=1) for picture, spread in zip(originals, (3, 30, 90), strict=True)])
    one_by_one = [apply(metric, frames[i : i + 1], originals[i : i + 1]).item() for i in range(3)]
    assert sorted(one_by_one, reverse=True) == one_by_one
    assert apply(metric, frames, originals).tolist() == pytest.approx(one_by_one, abs=1e-6)


@pytest.mark.parametrize("pixels", [1, 3 * 20 * 21, 4 * 20 * 21 - 1])
def test_filtering_a_few_pictures_at_once_changes_nothing(monkeypatch, pixels):
    originals = noise(7, 20, 21)
    frames = jitter(originals, 40)
    expected = apply(ssim, frames, originals).tolist()
    monkeypatch.setattr(quality, "PIXELS_AT_ONCE", pixels)
    assert len(set(expected)) == 7
    assert apply(ssim, frames, originals).tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("pixels", "sizes"), [(1, [1] * 7), (3 * 20 * 21, [3, 3, 1]), (2**20, [7])])
def test_pictures_are_filtered_as_many_at_once_as_allowed(monkeypatch, pixels, sizes):
    seen, whole = [], quality._ssim

    def watched(x, y):
        seen.append(len(x) // 3)  # colours are pictures of their own
        return whole(x, y)

    monkeypatch.setattr(quality, "_ssim", watched)
    monkeypatch.setattr(quality, "PIXELS_AT_ONCE", pixels)
    apply(ssim, noise(7, 20, 21), noise(7, 20, 21))
    assert seen == sizes


def test_a_clip_is_measured_frame_by_frame():
    originals = noise(6, 16, 12).reshape(2, 3, 16, 12, 3)
    frames = jitter(originals, 50)
    found = measure_frames({"psnr": psnr, "ssim": ssim}, torch.from_numpy(frames), torch.from_numpy(originals))
    for i in range(2):
        assert list(found[i]) == ["psnr", "ssim"]
        assert found[i]["psnr"] == pytest.approx(apply(psnr, frames[i], originals[i]).tolist(), abs=1e-9)
        assert found[i]["ssim"] == pytest.approx(apply(ssim, frames[i], originals[i]).tolist(), abs=1e-6)


def test_the_mean_over_frames_takes_those_that_are_defined():
    def metric(frames: Tensor, originals: Tensor) -> Tensor:
        return torch.tensor([1.0, math.nan, 4.0])

    assert mean_over_frames(metric, noise(3, 4, 4), noise(3, 4, 4)) == 2.5


def test_the_mean_over_frames_of_what_is_never_defined_is_not():
    assert math.isnan(mean_over_frames(ssim, noise(3, 4, 4), noise(3, 4, 4)))


# LPIPS


@pytest.fixture(scope="module")
def alex(filled):
    module = filled(LPIPS("alex"))
    with torch.no_grad():
        for head in module.heads:
            head.weight.abs_()
    return module


@pytest.fixture(scope="module")
def metric(alex, tmp_path_factory):
    file = tmp_path_factory.mktemp("lpips") / "alex.safetensors"
    save_file(alex.state_dict(), file)
    return lpips_metric("alex", file, cache=Path("/nowhere"))


def test_lpips_is_that_of_the_module_for_pictures_from_minus_one_to_one(alex, metric):
    originals = shapes(3, 48)
    frames = np.concatenate([jitter(originals[:1], 5), blurred(originals[1:], 2)])
    found = apply(metric, frames, originals)
    scaled = [torch.from_numpy(p).movedim(-1, 1).double() / 255 * 2 - 1 for p in (frames, originals)]
    expected = alex(*(p.float() for p in scaled))
    assert expected.min() > 0
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_lpips_of_equal_pictures_is_zero(metric):
    pictures = shapes(2, 48)
    assert apply(metric, pictures, pictures).tolist() == [0, 0]


@pytest.mark.parametrize("size", [(30, 60), (60, 30)])
def test_pictures_too_small_for_the_network_have_no_lpips(metric, size):
    assert apply(metric, noise(2, *size), noise(2, *size)).isnan().tolist() == [True, True]


def test_the_least_size_for_the_network_has_an_lpips(metric):
    assert apply(metric, noise(1, 31, 31), noise(1, 31, 31, seed=1)).item() > 0


def test_missing_weights_are_told_with_the_remedy(tmp_path):
    with pytest.raises(CheckpointError, match="add --download"):
        lpips_metric("alex", None, cache=tmp_path)
