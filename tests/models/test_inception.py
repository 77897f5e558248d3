"""Inception as the FID has it: its parts against naive references, the whole against torch-fidelity where that is."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from grncli.models.inception import BLOCKS, InceptionV3, Mixed, resize_like_tensorflow
from grncli.models.unfilled import made_on_meta

POINT = [(1, 1)]


def draw_weights(seed=0):
    """Weights that keep features alive through the whole network, the statistics of batch norm among them."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, tensor in made_on_meta(InceptionV3).state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros((), dtype=torch.long)
        elif tensor.dim() > 1:
            weights[name] = torch.randn(tensor.shape, generator=generator) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            weights[name] = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            weights[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    return weights


def draw_pictures(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


@pytest.fixture(scope="module")
def weights():
    return draw_weights()


@pytest.fixture(scope="module")
def inception(weights):
    network = made_on_meta(InceptionV3)
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(False)


def resized_naively(x, side):
    """Bilinear resizing of one channel, pixel by pixel, of the four neighbours weighted by their nearness."""
    height, width = x.shape
    out = np.zeros((side, side))
    for i in range(side):
        for j in range(side):
            y, z = i * height / side, j * width / side
            top, left = int(y), int(z)
            for row, down in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                for column, across in ((left, 1 - (z - left)), (min(left + 1, width - 1), z - left)):
                    out[i, j] += x[row, column] * down * across
    return out


@pytest.mark.parametrize("size", [(5, 9), (17, 4), (12, 12), (1, 30)])
def test_resizing_is_that_of_tensorflow_1(size):
    x = draw_pictures(size).numpy()
    found = resize_like_tensorflow(torch.from_numpy(x).float()[None, None], 12)
    np.testing.assert_allclose(found[0, 0].numpy(), resized_naively(x, 12), atol=1e-3)


def test_resizing_doubles_by_repeating_the_edge():
    found = resize_like_tensorflow(torch.tensor([[[[0.0, 10.0]]]]), 4)
    assert found[0, 0, 0].tolist() == [0, 5, 10, 10]


def test_a_picture_of_the_right_size_stays_as_it_is():
    x = draw_pictures((1, 3, 16, 16)).float()
    assert torch.equal(resize_like_tensorflow(x, 16), x)


def test_channels_and_rows_are_resized_apart():
    x = draw_pictures((2, 3, 7, 11)).float()
    whole = resize_like_tensorflow(x, 13)
    for picture in range(2):
        for channel in range(3):
            apart = resize_like_tensorflow(x[picture : picture + 1, channel : channel + 1], 13)
            assert torch.equal(whole[picture, channel], apart[0, 0])


def test_weights_have_the_names_and_shapes_of_torch_fidelity():
    state = made_on_meta(InceptionV3).state_dict()
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    assert len(shapes) == 94 * 6 + 2
    assert {name.split(".", 1)[0] for name in shapes} == {
        *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "fc"),
        *BLOCKS,
    }
    assert shapes["Conv2d_1a_3x3.conv.weight"] == [32, 3, 3, 3]
    assert shapes["Conv2d_1a_3x3.bn.running_var"] == [32]
    assert shapes["Mixed_5b.branch1x1.conv.weight"] == [64, 192, 1, 1]
    assert shapes["Mixed_5d.branch_pool.conv.weight"] == [64, 288, 1, 1]
    assert shapes["Mixed_6a.branch3x3.conv.weight"] == [384, 288, 3, 3]
    assert shapes["Mixed_6c.branch7x7_2.conv.weight"] == [160, 160, 1, 7]
    assert shapes["Mixed_6e.branch7x7dbl_5.conv.weight"] == [192, 192, 1, 7]
    assert shapes["Mixed_7a.branch7x7x3_4.conv.weight"] == [192, 192, 3, 3]
    assert shapes["Mixed_7b.branch3x3_2b.conv.weight"] == [384, 384, 3, 1]
    assert shapes["Mixed_7c.branch3x3dbl_3a.conv.weight"] == [384, 384, 1, 3]
    assert shapes["fc.weight"] == [1008, 2048]
    assert shapes["fc.bias"] == [1008]


def test_it_has_as_many_parameters_as_the_published_one():
    assert sum(parameter.numel() for parameter in made_on_meta(InceptionV3).parameters()) == 23_850_960


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [(False, [[3.0, 3.5, 4.0], [4.5, 5.0, 5.5], [6.0, 6.5, 7.0]]), (True, [[5.0, 6, 6], [8, 9, 9], [8, 9, 9]])],
)
def test_pools_leave_the_padding_out(maximum, expected):
    block = Mixed(1, {"branch_pool": [(1, POINT)]}, maximum=maximum).eval()
    block.branch_pool.conv.weight.data.fill_((1 + 1e-3) ** 0.5)  # undoes the epsilon of batch norm
    x = torch.arange(1.0, 10).view(1, 1, 3, 3)
    assert torch.allclose(block(x)[0, 0], torch.tensor(expected))


def test_only_the_last_block_pools_by_maximum(inception):
    assert [name for name in BLOCKS if inception.get_submodule(name).maximum] == ["Mixed_7c"]


@pytest.mark.parametrize(
    ("branches", "expected"),
    [
        ({"branch": [(3, POINT), (8, [(3, 3)])]}, (1, 8 + 2, 4, 4)),
        ({"branch": [(3, POINT), (4, [(1, 3), (3, 1)])], "branch_pool": [(5, POINT)]}, (1, 8 + 5, 9, 9)),
    ],
)
def test_blocks_without_a_pooling_branch_halve_the_resolution(branches, expected):
    block = Mixed(2, branches)
    assert block(torch.zeros(1, 2, 9, 9)).shape == expected
    assert block.channels == expected[1]


def test_pictures_of_any_size_give_features_and_logits_without_bias(inception, weights):
    features, logits = inception(draw_pictures((2, 3, 20, 36)))
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    assert features.dtype == logits.dtype == torch.float32
    assert features.std() > 0.1
    assert (features[0] - features[1]).abs().max() > 0.1
    assert torch.allclose(logits, F.linear(features, weights["fc.weight"]), atol=1e-4)


def test_it_is_frozen_and_stays_in_evaluation_mode(inception):
    assert not inception.train().training
    assert not inception.Mixed_5b.branch1x1.bn.training
    assert not any(parameter.requires_grad for parameter in inception.parameters())


@pytest.mark.parametrize(
    "pictures",
    [torch.zeros(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(1, 8, 8, 3, dtype=torch.uint8)],
)
def test_other_input_is_refused(inception, pictures):
    with pytest.raises(ValueError, match=r"expected uint8 \[B, 3, H, W\]"):
        inception(pictures)


@pytest.mark.parametrize("size", [(64, 48), (299, 299), (31, 512)])
def test_it_computes_what_torch_fidelity_computes(inception, weights, size, tmp_path):
    fidelity = pytest.importorskip("torch_fidelity")
    torch.save(weights, tmp_path / "inception.pth")
    theirs = fidelity.FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(tmp_path / "inception.pth")
    )
    assert inception.state_dict().keys() == theirs.state_dict().keys()
    pictures = draw_pictures((2, 3, *size))
    for found, expected in zip(inception(pictures), theirs(pictures), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-4)
