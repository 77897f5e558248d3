"""The text-conditional generator: the release's numbers and sizes, packed samples, memory of texts, a clean frame."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from grncli.models.aspect_ratios import nearest_template
from grncli.models.generator import STEADY_ROWS
from grncli.models.text_transformer import (
    TextMemory,
    TextTransformer,
    TextTransformerConfig,
    TextTransformerShape,
)
from grncli.runtime.tensor_files import read_released

TINY = {
    "depth": 3,
    "width": 32,
    "heads": 4,
    "key_value_heads": 2,
    "hidden": 64,
    "text_width": 12,
    "rounds": 2,
    "channels": 3,
}
RELEASED = {"depth": 2, "width": 48, "heads": 2, "key_value_heads": 2, "hidden": 256, "text_width": 24, "channels": 8}
SIZES = {
    "0b": {"depth": 4, "width": 512, "heads": 4, "key_value_heads": 4, "hidden": 1792},
    "2B": {"depth": 28, "width": 2304, "heads": 18, "key_value_heads": 18, "hidden": 8192},
    "8B": {"depth": 36, "width": 4096, "heads": 32, "key_value_heads": 32, "hidden": 12288},
}
each_variant = pytest.mark.parametrize("attention", ["text-only", "full"])


@pytest.fixture(scope="module")
def make(filled):
    """A small generator with drawn weights."""

    def make_one(**config):
        return filled(TextTransformer(TextTransformerConfig(**{**TINY, **config}))).eval().requires_grad_(False)

    return make_one


def inputs(config, grids, lengths, seed=0):
    """For each grid a state, a selection ratio and a text of so many tokens."""
    generator = torch.Generator().manual_seed(seed)
    channels, categories = config.codec.token_channels, config.codec.categories
    states = [torch.randint(categories, (channels, *g), generator=generator, dtype=torch.uint8) for g in grids]
    text = [torch.randn(n, config.text_width, generator=generator) for n in lengths]
    return states, torch.rand(len(grids), generator=generator), text


def batch(config, size=2, grid=(1, 4, 5), lengths=(3, 6), seed=0):
    """The same, the states of one grid in one tensor."""
    states, ratio, text = inputs(config, [grid] * size, (lengths * size)[:size], seed)
    return torch.stack(states), ratio, text


# With the release's outputs


def released_weights(file):
    """The tensors of a released file under our names."""
    theirs = read_released(file)
    names = {"text_projection": "text_proj", "ratio.first": "pt_embedder.mlp.0", "ratio.second": "pt_embedder.mlp.2"}
    ours = {"embedding.table": theirs["word_embed.weight"].T, "embedding.bias": theirs["word_embed.bias"]}
    for name, their_name in {**names, "head.linear": "head.proj"}.items():
        ours |= {f"{name}.{part}": theirs[f"{their_name}.{part}"] for part in ("weight", "bias")}
    ours["head.norm.gain"] = theirs["head.norm.weight"]
    for number in range(2):
        block, their_block = f"blocks.{number}", f"block_chunks.{number}.module.0"
        joined = {"attention.qkv": ["attn.q_proj", "attn.k_proj", "attn.v_proj"], "mlp.down": ["mlp.down_proj"]}
        joined |= {"attention.projection": ["attn.o_proj"], "mlp.gate_and_up": ["mlp.gate_proj", "mlp.up_proj"]}
        for name, parts in joined.items():
            ours[f"{block}.{name}.weight"] = torch.cat([theirs[f"{their_block}.{part}.weight"] for part in parts])
        gains = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
        gains |= {"attention.query_norm": "attn.q_norm", "attention.key_norm": "attn.k_norm"}
        ours |= {f"{block}.{name}.gain": theirs[f"{their_block}.{part}.weight"] for name, part in gains.items()}
    return ours


@pytest.fixture(scope="module")
def released(release_fixtures):
    """How far a variant's logits are from the release's, in float32."""
    weights = released_weights(release_fixtures / "t2iv_bit.pth")
    outputs = load_file(release_fixtures / "t2iv_bit_io.safetensors")

    def distance(attention, case, text, logits):
        network = TextTransformer(TextTransformerConfig(**RELEASED, rounds=4, attention=attention))
        network.load_state_dict(weights)
        with torch.no_grad():
            ours = network(outputs[f"{case}_state"], outputs[f"{case}_t"], [outputs[f"{case}_{text}"]])
        return float((ours.flatten(3).permute(0, 3, 2, 1) - outputs[f"{case}_logits_{logits}"]).abs().max())

    return distance


each_output = [
    pytest.mark.parametrize("case", ["image", "wide", "video"]),
    pytest.mark.parametrize(("text", "logits"), [("text", "cond"), ("negative", "uncond")]),
]


@each_output[0]
@each_output[1]
def test_logits_equal_the_release(released, case, text, logits):
    assert released("text-only", case, text, logits) < 1e-5


@each_output[0]
@each_output[1]
def test_the_other_variant_gives_other_logits(released, case, text, logits):
    assert released("full", case, text, logits) > 0.05


# With the definition


def place_of(grid, frame, row, column, positions):
    """Where a visual token lies (facts section 4), or one apart from the next."""
    if positions == "per-token":
        return 600 + frame, row, column
    _, height, width = grid
    ratio = nearest_template(height / width)
    across = math.sqrt(225 * 75 / ratio)
    return 600 + frame, round(row * int(ratio * across) / height), round(column * int(across) / width)


def turned(x, places):
    """Pairs of neighbours as complex numbers, turned by the places of the tokens; ``x [N, d]``."""
    half = x.shape[1] // 2
    counts = (half // 3, half // 3, half - 2 * (half // 3))
    angles = [[p * 10000 ** (-i / n) for p, n in zip(place, counts, strict=True) for i in range(n)] for place in places]
    turns = torch.tensor(angles, dtype=torch.float64)
    pairs = torch.view_as_complex(x.unflatten(1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(turns), turns)
    return torch.view_as_real(pairs).flatten(1)


def normed(x, gain):
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * gain


def defined(network, state, ratio, text, clean_first=False):
    """Logits ``[K, channels, frames, h, w]`` of one sample: one sequence under a dense mask, in float64.

    The order is that of the release of June: noisy frames, the clean frame, text, selection ratio.
    """
    config, weights = network.config, {name: tensor.double() for name, tensor in network.state_dict().items()}
    channels, frames, height, width = state.shape
    order = [*range(1, frames), 0] if clean_first else list(range(frames))
    one_hot = F.one_hot(state.long(), config.codec.categories).permute(1, 2, 3, 0, 4)[order].flatten(3).flatten(0, 2)
    visual = one_hot.double() @ weights["embedding.table"] + weights["embedding.bias"]
    waves = [ratio.double() * 10000 ** (-i / 128) for i in range(128)]
    waves = torch.stack([wave.cos() for wave in waves] + [wave.sin() for wave in waves])
    told = F.silu(weights["ratio.first.weight"] @ waves + weights["ratio.first.bias"])
    told = weights["ratio.second.weight"] @ told + weights["ratio.second.bias"]
    words = text.double() @ weights["text_projection.weight"].T + weights["text_projection.bias"]
    x = torch.cat([visual, words, told[None]])
    grid = (frames, height, width)
    places = [place_of(grid, f, r, c, config.positions) for f in order for r in range(height) for c in range(width)]
    places += [(j, 0, 0) for j in range(len(words))] + [(512, 0, 0)]
    is_text = torch.tensor([place[0] < 512 for place in places])
    hidden = is_text[:, None] & ~is_text if config.attention == "text-only" else torch.zeros(len(x), len(x)).bool()
    for number in range(config.depth):
        own = {name.split(".", 2)[2]: w for name, w in weights.items() if name.startswith(f"blocks.{number}.")}
        x = defined_block(x, own, config, places, hidden)
    x = normed(x[: (frames - clean_first) * height * width], weights["head.norm.gain"])
    logits = x @ weights["head.linear.weight"].T + weights["head.linear.bias"]
    return logits.view(-1, height, width, channels, config.codec.categories).permute(4, 3, 0, 1, 2)


def defined_block(x, weights, config, places, hidden):
    """One block."""
    rows = normed(x, weights["norm1.gain"]) @ weights["attention.qkv.weight"].T
    d, group = config.head_width, config.heads // config.key_value_heads
    heads = rows.unflatten(1, (-1, d)).unbind(1)
    queries, others = heads[: config.heads], heads[config.heads :]
    keys, values = others[: config.key_value_heads], others[config.key_value_heads :]
    mixed = []
    for head, query in enumerate(queries):
        q = turned(normed(query, weights["attention.query_norm.gain"]), places)
        k = turned(normed(keys[head // group], weights["attention.key_norm.gain"]), places)
        mixed.append((q @ k.T / d**0.5).masked_fill(hidden, -math.inf).softmax(dim=1) @ values[head // group])
    x = x + torch.cat(mixed, dim=1) @ weights["attention.projection.weight"].T
    gate, up = (normed(x, weights["norm2.gain"]) @ weights["mlp.gate_and_up.weight"].T).chunk(2, dim=1)
    return x + (F.silu(gate) * up) @ weights["mlp.down.weight"].T


@each_variant
@pytest.mark.parametrize("key_value_heads", [4, 2, 1])
@pytest.mark.parametrize("prediction", ["ind", "bit"])
@pytest.mark.parametrize("positions", ["spread", "per-token"])
def test_logits_are_those_of_the_definition(make, attention, key_value_heads, prediction, positions):
    sizes = {"key_value_heads": key_value_heads, "prediction": prediction, "positions": positions, "width": 48}
    network = make(attention=attention, **sizes)
    state, ratio, text = batch(network.config, grid=(2, 3, 4))
    logits = network(state, ratio, text)
    for row in range(2):
        expected = defined(network, state[row], ratio[row], text[row])
        torch.testing.assert_close(logits[row].double(), expected, atol=1e-5, rtol=0)


@each_variant
def test_a_clean_first_frame_joins_as_further_tokens(make, attention):
    network = make(attention=attention)
    state, ratio, text = batch(network.config, grid=(3, 3, 2))
    logits = network(state, ratio, text, clean_first=True)
    for row in range(2):
        expected = defined(network, state[row], ratio[row], text[row], clean_first=True)
        torch.testing.assert_close(logits[row, :, :, 1:].double(), expected, atol=1e-5, rtol=0)


# Sizes and configurations


@pytest.mark.parametrize(("size", "millions"), [("0b", 18.2), ("2B", 2197.83), ("8B", 7890.9)])
@each_variant
def test_the_released_sizes_have_their_parameters(size, millions, attention):
    with torch.device("meta"):
        config = TextTransformerConfig(rounds=4, channels=64, attention=attention, **SIZES[size])
        network = TextTransformer(config)
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    assert parameters == pytest.approx(millions, abs=0.005 if size == "2B" else 0.05)


def test_the_default_size_is_2b():
    shape = TextTransformerShape()
    assert {name: getattr(shape, name) for name in SIZES["2B"]} == SIZES["2B"]
    assert (shape.text_width, shape.prediction) == (4096, "bit")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"depth": 0}, "depth is 0, expected 1 to 1024"),
        ({"width": 0}, "width is 0, expected 1 to 65536"),
        ({"heads": -1}, "heads is -1, expected 1 to 65536"),
        ({"heads": 3}, "width is 32, expected an even number from 6 times heads=3"),
        ({"heads": 8, "key_value_heads": 8}, "width is 32, expected an even number from 6 times heads=8"),
        ({"width": 36}, "width is 36, expected an even number from 6 times heads=4"),
        ({"key_value_heads": 3}, "key_value_heads is 3, expected a divisor of heads=4"),
        ({"key_value_heads": 0}, "key_value_heads is 0, expected 1 to 65536"),
        ({"hidden": 0}, "hidden is 0, expected 1 to 262144"),
        ({"hidden": 10**9}, "hidden is 1000000000, expected 1 to 262144"),
        ({"text_width": 0}, "text_width is 0, expected 1 to 65536"),
        ({"rounds": 9}, "rounds is 9, expected 1 to 8"),
        ({"channels": 0}, "channels is 0, expected 1 to 65536"),
        ({"attention": "causal"}, "attention is 'causal', expected text-only or full"),
        ({"positions": "learned"}, "positions is 'learned', expected spread or per-token"),
    ],
    ids=str,
)
def test_an_impossible_size_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TextTransformerConfig(**{**TINY, **wrong})


def test_first_weights_are_those_of_the_release_of_june():
    torch.manual_seed(0)
    network = TextTransformer(TextTransformerConfig(**{**TINY, "width": 96, "hidden": 256, "text_width": 64}))
    std = (3 * 96) ** -0.5
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif name.endswith("gain"):
            assert (parameter == 1).all()
        else:
            back = name.endswith(("projection.weight", "down.weight")) and name.startswith("blocks")
            expected = std / math.sqrt(6) if back else std
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.1), name


# Packed samples

SOME_GRIDS = [(1, 4, 5), (2, 3, 3), (1, 6, 2), (1, 1, 1)]
samples = st.lists(st.tuples(st.sampled_from(SOME_GRIDS), st.integers(1, 20)), min_size=1, max_size=4)


@each_variant
@settings(max_examples=15)
@given(pairs=samples)
def test_in_float32_packed_samples_equal_lone_ones(make, attention, pairs):
    network = make(attention=attention)
    states, ratio, text = inputs(network.config, *zip(*pairs, strict=True))
    packed = network.predict(states, ratio, text)
    for row, logits in enumerate(packed):
        alone = network(states[row][None], ratio[row : row + 1], text[row : row + 1])
        assert torch.equal(logits, alone[0])


@each_variant
@pytest.mark.parametrize("size", [3, 7, 17])
def test_in_float32_a_row_does_not_depend_on_its_batch(make, attention, size):
    network = make(attention=attention, width=64)
    state, ratio, text = batch(network.config, size, lengths=(3, 9, 1))
    row = size // 2
    alone = network(state[row : row + 1], ratio[row : row + 1], text[row : row + 1])
    assert torch.equal(network(state, ratio, text)[row : row + 1], alone)


@pytest.mark.parametrize(("prediction", "shape"), [("bit", (2, 6)), ("ind", (4, 3))])
def test_there_is_a_logit_for_each_category_of_each_channel(make, prediction, shape):
    network = make(prediction=prediction)
    state, ratio, text = batch(network.config, grid=(2, 3, 4))
    assert network(state, ratio, text).shape == (2, *shape, 2, 3, 4)


# Memory of texts


@each_variant
def test_a_remembered_text_is_the_same_as_its_features(make, attention):
    network = make(attention=attention)
    state, ratio, text = batch(network.config)
    memories = network.remember(text)
    expected = network(state, ratio, text)
    assert all(isinstance(memory, TextMemory) for memory in memories)
    torch.testing.assert_close(network(state, ratio, memories), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(network(state, ratio, [memories[0], text[1]]), expected, atol=1e-5, rtol=0)
    moved = [memory.to("cpu") for memory in memories]
    torch.testing.assert_close(network(state, ratio, moved), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("attention", "shape"), [("text-only", (3, 2, 6, 2, 8)), ("full", (6, 32))])
def test_a_memory_holds_what_the_state_does_not_change(make, attention, shape):
    network = make(attention=attention)
    memory = network.remember(batch(network.config)[2])[1]
    assert memory.kept.shape == shape
    assert memory.kept.untyped_storage().nbytes() == 4 * math.prod(shape)  # and nothing of the other texts


@each_variant
def test_a_text_of_few_tokens_is_remembered_alike_in_any_company(make, attention):
    network = make(attention=attention, width=64)
    text = inputs(network.config, [], [1, 40, 5])[2]
    alone = network.remember(text[:1])[0]
    assert len(text[0]) < STEADY_ROWS
    assert torch.equal(network.remember(text)[0].kept, alone.kept)


def test_nothing_is_remembered_of_no_text(make):
    assert make().remember([]) == []


# A clean first frame


def test_a_clean_first_frame_is_certain(make):
    network = make(prediction="ind")
    state, ratio, text = batch(network.config, grid=(3, 2, 3))
    first = network(state, ratio, text, clean_first=True)[:, :, :, 0]
    assert torch.equal(first.argmax(dim=1), state[:, :, 0].long())
    chance = torch.distributions.Categorical(logits=first.movedim(1, -1) / 4)  # at temperature 4
    assert not chance.entropy().any()


def test_a_clean_first_frame_guides_the_later_ones(make):
    network = make()
    state, ratio, text = batch(network.config, grid=(3, 2, 3))
    changed = state.clone()
    changed[:, :, 0] = 1 - changed[:, :, 0]
    logits, others = (network(each, ratio, text, clean_first=True)[:, :, :, 1:] for each in (state, changed))
    assert not torch.allclose(logits, others, atol=1e-3)


# What the logits depend on


@each_variant
def test_the_ratio_changes_the_logits(make, attention):
    network = make(attention=attention)
    state, ratio, text = batch(network.config)
    assert not torch.allclose(network(state, ratio, text), network(state, ratio / 2, text), atol=1e-3)


@each_variant
def test_every_token_changes_the_logits_of_every_other(make, attention):
    network = make(attention=attention)
    state, ratio, text = batch(network.config, size=1)
    changed = state.clone()
    changed[:, 0, 0, 3, 4] = 1 - changed[:, 0, 0, 3, 4]
    difference = (network(state, ratio, text) - network(changed, ratio, text)).abs().amax(dim=(0, 1, 2))
    assert float(difference.min()) > 0


@each_variant
def test_every_word_changes_the_logits(make, attention):
    network = make(attention=attention)
    state, ratio, text = batch(network.config, size=1)
    logits = network(state, ratio, text)
    for word in range(len(text[0])):
        changed = text[0].clone()
        changed[word] += 1
        assert not torch.allclose(network(state, ratio, [changed]), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            [torch.zeros(3, 11), torch.zeros(3, 12)],
            r"have shape \[3, 11\], this generator's encoder gives \[length, 12",
        ),
        ([torch.zeros(12), torch.zeros(3, 12)], r"have shape \[12\]"),
        ([torch.zeros(3, 12)], "there are 1 texts for 2 samples"),
    ],
    ids=["width", "dimensions", "number"],
)
def test_texts_that_do_not_fit_are_refused(make, texts, message):
    network = make()
    state, ratio, _ = batch(network.config)
    with pytest.raises(ValueError, match=message):
        network(state, ratio, texts)


# Training and number formats


@each_variant
def test_every_parameter_learns(make, attention):
    network = make(attention=attention).requires_grad_(True)
    state, ratio, text = batch(network.config)
    with torch.inference_mode():
        network(state, ratio, text)  # what is kept of it must not hinder training
    F.cross_entropy(network(state, ratio, text), state.flip(0).long()).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@each_variant
def test_packed_samples_have_the_gradients_of_lone_ones(make, attention):
    network = make(attention=attention).double().requires_grad_(True)
    states, ratio, text = inputs(network.config, SOME_GRIDS, [3, 1, 7, 2])

    def gradients(logits):
        network.zero_grad()
        sum(each.square().sum() for each in logits).backward()
        return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}

    packed = gradients(network.predict(states, ratio, text))
    lone = gradients([network(states[i][None], ratio[i : i + 1], text[i : i + 1]) for i in range(4)])
    for name, gradient in packed.items():
        torch.testing.assert_close(gradient, lone[name])


@each_variant
def test_bfloat16_stays_near_float32(make, attention):
    network = make(attention=attention)
    arguments = batch(network.config)
    exact = network(*arguments)
    rounded = copy.deepcopy(network).bfloat16()(*arguments)
    assert rounded.dtype == torch.bfloat16
    assert float((rounded - exact).square().mean().sqrt()) < 0.05 * float(exact.std())


@each_variant
def test_the_head_stays_in_float32_under_autocast(make, attention):
    network = make(attention=attention)
    arguments = batch(network.config)
    exact = network(*arguments)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(*arguments)
    assert mixed.dtype == torch.float32
    assert 0 < float((mixed - exact).square().mean().sqrt()) < 0.05 * float(exact.std())
