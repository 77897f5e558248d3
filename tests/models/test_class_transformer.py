"""The generator: the release's numbers and sizes, no dependence on the batch, and positions in time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from grncli.models.class_transformer import (
    Block,
    ClassTransformer,
    ClassTransformerConfig,
    ClassTransformerShape,
    TokenEmbedding,
)
from grncli.models.transformer import rotary
from grncli.runs.generators import load_generator
from grncli.runs.importing import import_released

TINY = {
    "depth": 3,
    "width": 32,
    "heads": 2,
    "bottleneck": 8,
    "in_context_tokens": 4,
    "in_context_start": 1,
    "rounds": 2,
    "channels": 3,
    "classes": 5,
}
SIZES = {
    "B": {"depth": 12, "width": 768, "heads": 12, "bottleneck": 128, "in_context_start": 4},
    "L": {"depth": 24, "width": 1024, "heads": 16, "bottleneck": 128, "in_context_start": 8},
    "H": {"depth": 32, "width": 1280, "heads": 16, "bottleneck": 256, "in_context_start": 10},
    "G": {"depth": 40, "width": 1664, "heads": 16, "bottleneck": 256, "in_context_start": 10},
}
each_prediction = pytest.mark.parametrize("prediction", ["ind", "bit"])


@pytest.fixture(scope="module")
def make(filled):
    """A small generator with drawn weights."""

    def make_one(**config):
        return filled(ClassTransformer(ClassTransformerConfig(**{**TINY, **config}))).eval().requires_grad_(False)

    return make_one


def inputs(config, batch=3, grid=(1, 4, 4), seed=0):
    """A state, selection ratios and labels."""
    generator = torch.Generator().manual_seed(seed)
    state = torch.randint(
        config.codec.categories, (batch, config.codec.token_channels, *grid), generator=generator, dtype=torch.uint8
    )
    ratio = torch.rand(batch, generator=generator)
    return state, ratio, torch.randint(config.null_class + 1, (batch,), generator=generator)


# With the release's outputs


@pytest.fixture(scope="module", params=["ind", "bit"])
def released(request, release_fixtures, tmp_path_factory):
    """For each kind a way to import and run its weights, and the logits of the release."""
    outputs = load_file(release_fixtures / f"c2i_{request.param}_io.safetensors")
    folder = tmp_path_factory.mktemp("released")

    def logits_of(weights):
        run = folder / str(weights)
        file = release_fixtures / f"c2i_{request.param}.pth"
        import_released(file, run, weights=weights, settings=["in_context_start=1"])
        return load_generator(run)(outputs["state"].unsqueeze(2), outputs["t"], outputs["label"]).squeeze(3)

    return logits_of, outputs["logits"]


@pytest.mark.parametrize("weights", [None, "ema1"])
def test_logits_equal_the_release(released, weights):
    logits_of, expected = released
    torch.testing.assert_close(logits_of(weights), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("weights", ["ema2", "model"])
def test_the_other_weights_give_other_logits(released, weights):
    logits_of, expected = released
    assert float((logits_of(weights) - expected).abs().max()) > 1e-2


# Sizes


@pytest.mark.parametrize(
    ("size", "prediction", "millions"),
    [
        ("B", "ind", 130.66),
        ("B", "bit", 130.55),
        ("L", "ind", 458.29),
        ("L", "bit", 458.14),
        ("H", "ind", 951.73),
        ("H", "bit", 951.53),
        ("G", "ind", 2006.15),
        ("G", "bit", 2005.90),
    ],
)
def test_the_papers_sizes_have_their_parameters(size, prediction, millions):
    with torch.device("meta"):
        network = ClassTransformer(
            ClassTransformerConfig(prediction=prediction, rounds=4, channels=16, classes=1000, **SIZES[size])
        )
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_the_default_size_is_b():
    config = ClassTransformerShape()
    assert {name: getattr(config, name) for name in SIZES["B"]} == SIZES["B"]


@pytest.mark.parametrize(("prediction", "categories", "elements"), [("ind", 16, 8), ("bit", 2, 32)])
def test_the_bits_tell_categories_and_elements(prediction, categories, elements):
    config = ClassTransformerConfig(prediction=prediction, rounds=4, channels=8, classes=0)
    assert (config.codec.categories, config.codec.token_channels) == (categories, elements)


@each_prediction
@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 3, 5), (3, 2, 4), (1, 1, 1)])
def test_there_is_a_logit_for_each_category_of_each_element(make, prediction, grid):
    network = make(prediction=prediction)
    state, ratio, label = inputs(network.config, grid=grid)
    assert network(state, ratio, label).shape == (
        3,
        network.config.codec.categories,
        network.config.codec.token_channels,
        *grid,
    )


# Configurations


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 0}, "depth is 0, expected 1 to 1024"),
        ({"width": 0}, "width is 0, expected 1 to 65536"),
        ({"heads": -1}, "heads is -1, expected 1 to 65536"),
        ({"bottleneck": 0}, "bottleneck is 0, expected 1 to 65536"),
        ({"heads": 3}, "width is 32, expected a multiple of 4 times heads=3"),
        ({"heads": 16}, "width is 32, expected a multiple of 4 times heads=16"),
        ({"rounds": 0}, "rounds is 0, expected 1 to 8"),
        ({"rounds": 9}, "rounds is 9, expected 1 to 8"),
        ({"channels": 0}, "channels is 0, expected 1 to 65536"),
        ({"classes": -1}, "classes is -1, expected 0 to 16777216"),
        ({"in_context_tokens": -1}, "in_context_tokens is -1, expected 0 to 65536"),
        ({"in_context_start": 3}, "in_context_start is 3, expected 0 to 2"),
        ({"in_context_start": -1}, "in_context_start is -1, expected 0 to 2"),
        ({"depth": 10**8}, "depth is 100000000, expected 1 to 1024"),
        ({"width": 10**9}, "width is 1000000000, expected 1 to 65536"),
        ({"classes": 10**12}, "classes is 1000000000000, expected 0 to 16777216"),
        ({"in_context_tokens": 10**9}, "in_context_tokens is 1000000000, expected 0 to 65536"),
    ],
    ids=str,
)
def test_an_impossible_size_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        ClassTransformerConfig(**{**TINY, **wrong})


@pytest.mark.parametrize("missing", ["rounds", "channels", "classes"])
def test_a_network_needs_what_the_bits_tell(missing):
    with pytest.raises(TypeError, match=missing):
        ClassTransformerConfig(**{name: size for name, size in TINY.items() if name != missing})


# First weights


@each_prediction
def test_every_prediction_is_even_at_first(prediction):
    network = ClassTransformer(ClassTransformerConfig(**TINY, prediction=prediction))
    assert not network(*inputs(network.config)).any()


def test_every_block_is_the_identity_at_first(drawn):
    network = ClassTransformer(ClassTransformerConfig(**TINY))
    x = drawn((2, 16, 32), 0)
    assert all(torch.equal(block(x, drawn((2, 32), 1), rotary((1, 4, 4), 16)), x) for block in network.blocks)


def test_first_weights_follow_from_the_seed():
    def drawn_from(seed):
        torch.manual_seed(seed)
        return ClassTransformer(ClassTransformerConfig(**TINY)).state_dict()

    first, again = drawn_from(3), drawn_from(3)
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("name", ["classes", "context", "ratio.first.weight", "ratio.second.weight"])
def test_embeddings_are_drawn_small_at_first(name):
    torch.manual_seed(0)
    network = ClassTransformer(ClassTransformerConfig(**{**TINY, "width": 64, "in_context_tokens": 64, "classes": 63}))
    assert float(network.get_parameter(name).detach().std()) == pytest.approx(0.02, rel=0.1)


# What the logits depend on


@each_prediction
@pytest.mark.parametrize("batch", [3, 7, 17])
def test_a_row_does_not_depend_on_its_batch(make, prediction, batch):
    network = make(prediction=prediction, width=64)
    state, ratio, label = inputs(network.config, batch)
    row = batch // 2
    alone = network(state[row : row + 1], ratio[row : row + 1], label[row : row + 1])
    assert torch.equal(network(state, ratio, label)[row : row + 1], alone)


def test_the_ratio_changes_the_logits(make):
    state, ratio, label = inputs(make().config)
    assert not torch.allclose(make()(state, ratio, label), make()(state, ratio / 2, label), atol=1e-3)


def test_the_label_changes_the_logits(make):
    state, ratio, label = inputs(make().config)
    assert not torch.allclose(make()(state, ratio, label), make()(state, ratio, (label + 1) % 6), atol=1e-3)


def test_every_token_changes_the_logits_of_every_other(make):
    network = make()
    state, ratio, label = inputs(network.config, batch=1)
    changed = state.clone()
    changed[:, 0, 0, 3, 3] = (changed[:, 0, 0, 3, 3] + 1) % 4
    difference = (network(state, ratio, label) - network(changed, ratio, label)).abs().amax(dim=(0, 1, 2))
    assert float(difference.min()) > 0


def test_a_network_that_was_used_for_inference_can_be_trained(make):
    network = make().requires_grad_(True)
    arguments = inputs(network.config)
    with torch.inference_mode():
        network(*arguments)
    network(*arguments).sum().backward()


def test_the_context_joins_where_the_configuration_says(make):
    early, late = make(in_context_start=0), make(in_context_start=2)
    assert not torch.allclose(early(*inputs(early.config)), late(*inputs(late.config)), atol=1e-3)


def test_a_network_may_have_no_context(drawn):
    network = ClassTransformer(ClassTransformerConfig(**{**TINY, "in_context_tokens": 0})).requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_(drawn(parameter.shape, 0))
    assert network(*inputs(network.config)).any()
    assert network(*inputs(network.config)).isfinite().all()


def test_a_network_may_have_no_classes(make):
    network = make(classes=0)
    state, ratio, _ = inputs(network.config)
    label = torch.full((3,), network.config.null_class)
    assert network(state, ratio, label).isfinite().all()


# Time


def test_frame_order_matters(make):
    network = make()
    state, ratio, label = inputs(network.config, grid=(3, 4, 4))
    backwards = network(state.flip(2), ratio, label).flip(3)
    assert not torch.allclose(network(state, ratio, label), backwards, atol=1e-3)


def test_a_lone_frame_is_placed_as_the_first_of_a_clip(make):
    network = make()
    single, clip = (network._placed(grid, torch.device("cpu")) for grid in ((1, 4, 4), (3, 4, 4)))
    context = network.config.in_context_tokens
    assert torch.equal(clip[0][:16], single[0])
    assert torch.equal(clip[1][:, : context + 16], single[1])


def test_grids_of_one_network_do_not_disturb_each_other(make):
    network = make()
    image = inputs(network.config)
    before = network(*image)
    network(*inputs(network.config, grid=(3, 4, 4)))
    network(*inputs(network.config, grid=(1, 2, 8)))
    assert torch.equal(network(*image), before)


# Token embedding


@pytest.mark.parametrize(("categories", "elements"), [(16, 3), (2, 12)])
def test_tokens_are_embedded_as_one_hot_categories_times_a_matrix(filled, categories, elements):
    embedding = filled(TokenEmbedding(categories, elements, 8, 16))
    state = torch.randint(categories, (2, elements, 2, 3, 4), generator=torch.Generator().manual_seed(0))
    one_hot = F.one_hot(state, categories).permute(0, 2, 3, 4, 5, 1).reshape(2, 24, categories * elements)
    expected = embedding.expand(one_hot.float() @ embedding.table)
    torch.testing.assert_close(embedding(state), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_any_integers_are_tokens(filled, dtype):
    embedding = filled(TokenEmbedding(16, 3, 8, 16))
    state = torch.randint(16, (2, 3, 1, 3, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(embedding(state.to(dtype)), embedding(state))


# Blocks and number formats


def test_a_block_is_shifted_scaled_and_gated_by_its_condition(filled, drawn):
    block, x, condition = filled(Block(16, 2)), drawn((2, 12, 16), 0), drawn((2, 16), 1)
    rotation = rotary((1, 3, 4), 8)
    parts = (condition @ block.modulation.weight.T + block.modulation.bias)[:, None].chunk(6, dim=-1)
    shift1, scale1, gate1, shift2, scale2, gate2 = parts
    expected = x + gate1 * block.attention(block.norm1(x) * (1 + scale1) + shift1, rotation)
    expected = expected + gate2 * block.mlp(block.norm2(expected) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, condition, rotation), expected, atol=1e-5, rtol=0)


def gradients(network, arguments, target):
    network.zero_grad()
    F.cross_entropy(network(*arguments), target).backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def test_every_parameter_learns(make):
    network = make().requires_grad_(True)
    arguments = inputs(network.config)
    learned = gradients(network, arguments, arguments[0].flip(0).long())
    assert [name for name, gradient in learned.items() if not gradient.any()] == []


@each_prediction
def test_bfloat16_stays_near_float32(make, prediction):
    network = make(prediction=prediction)
    arguments = inputs(network.config)
    exact = network(*arguments)
    rounded = copy.deepcopy(network).bfloat16()(*arguments)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).square().mean().sqrt()) < 0.05 * float(exact.std())
