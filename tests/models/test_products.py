"""Products by the fastest way of a processor: the same numbers as PyTorch's own way, and samples that stay steady."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from grncli.models import products
from grncli.models.generator import STEADY_ROWS
from grncli.models.products import Linear, attention, gated, rms_norm, rotate, silu
from grncli.models.transformer import rotary
from grncli.runtime import devices

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True}
WIDE = 256  # a layer of this width is large enough for oneDNN

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Every detour, whatever this processor is quick at."""
    monkeypatch.setattr(products, "FASTER_BY_ONEDNN", True)
    monkeypatch.setattr(products, "FAST_BFLOAT16", True)
    yield
    products.use(fast=True)


@pytest.fixture
def calls(monkeypatch):
    """What went through oneDNN."""
    seen = []
    forward = products._OneDnnLinear.forward
    monkeypatch.setattr(products._OneDnnLinear, "forward", lambda *args: seen.append(args[1].shape) or forward(*args))
    return seen


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def by_both(function, *inputs):
    """Result and gradients of all inputs, with the detours and without."""
    kept = []
    for way in (True, False):
        products.use(fast=way)
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        result = function(*leaves)
        result.backward(random(*result.shape, seed=9, dtype=result.dtype))
        kept.append([result.detach(), *(leaf.grad for leaf in leaves)])
    return kept


# Linear layers


@pytest.mark.parametrize("shape", [(1, WIDE), (2, 17, WIDE), (600, WIDE)], ids=str)
def test_a_linear_layer_has_the_same_result_and_gradients(calls, shape):
    layer = Linear(WIDE, 130)

    def product(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    with_detour, without = by_both(product, random(*shape), random(130, WIDE, seed=1) / 16, random(130, seed=2))
    assert calls == [shape]
    torch.testing.assert_close(with_detour, without, atol=1e-4, rtol=1e-5)


def test_a_linear_layer_without_bias_reads_strided_inputs_and_leaves_out_gradients_nobody_wants(calls):
    layer = Linear(WIDE, WIDE, bias=False).requires_grad_(False)
    x = random(WIDE, 40).t().requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert len(calls) == 1
    torch.testing.assert_close(y, F.linear(x, layer.weight), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x), atol=1e-4, rtol=0)
    assert layer.weight.grad is None


@given(
    first=st.integers(0, 200),
    count=st.integers(STEADY_ROWS, 300),
    sizes=st.sampled_from([(768, 64), (64, 768), (300, 190), (2048, 96)]),
)
@settings(max_examples=40, deadline=None)
def test_a_row_does_not_depend_on_the_others(first, count, sizes):
    layer, rows = Linear(*sizes), random(500, sizes[0])
    with torch.inference_mode():
        assert layer.weight.numel() >= products.SMALLEST_WEIGHT
        assert torch.equal(layer(rows[first : first + count]), layer(rows)[first : first + count])


@pytest.mark.parametrize("reason", ["setting", "processor", "bfloat16", "autocast", "meta", "small", "no rows"])
def test_everything_else_is_left_to_pytorch(calls, monkeypatch, reason):
    layer, x = Linear(WIDE, WIDE), random(4, WIDE)
    if reason == "setting":
        products.use(fast=False)
    elif reason == "processor":
        monkeypatch.setattr(products, "FASTER_BY_ONEDNN", False)
    elif reason == "bfloat16":
        layer, x = layer.bfloat16(), x.bfloat16()
    elif reason == "meta":
        layer, x = layer.to("meta"), x.to("meta")
    elif reason == "small":
        layer, x = Linear(64, 64), x[:, :64]
    elif reason == "no rows":
        x = x[:0]
    with torch.autocast("cpu", torch.bfloat16, enabled=reason == "autocast"):
        y = layer(x)
    assert y.shape == x.shape
    assert calls == []


def test_operations_are_counted_on_the_meta_device():
    layer, x = Linear(WIDE, WIDE).to("meta"), torch.empty(10, WIDE, device="meta")
    with FlopCounterMode(display=False) as flops:
        layer(x)
    assert flops.get_total_flops() == 2 * 10 * WIDE * WIDE


def test_a_compiled_layer_has_the_same_result_and_gradients(calls):
    layer = Linear(WIDE, WIDE)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)

    def result(function):
        layer.zero_grad()
        x = random(20, WIDE).requires_grad_()
        y = function(x)
        y.square().sum().backward()
        return y.detach(), x.grad, layer.weight.grad.clone(), layer.bias.grad.clone()

    torch.testing.assert_close(result(compiled), result(layer), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (AMD, True),
        (AMD | {"avx512_f": False}, False),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True}, False),
        ({}, False),
    ],
    ids=["AMD with AVX-512", "AMD without", "Intel", "unknown"],
)
def test_onednn_multiplies_faster_on_amd_processors_with_avx512(monkeypatch, known, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert devices.multiplies_faster_by_onednn() == expected
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not devices.multiplies_faster_by_onednn()


# Attention


def qkv(samples, heads=3, queries=20, keys=30, width=16, dtype=torch.bfloat16):
    query = random(samples, queries, heads, width, seed=1, dtype=dtype).transpose(1, 2)
    return query, *(random(samples, keys, heads, width, seed=s, dtype=dtype).transpose(1, 2) for s in (2, 3))


@pytest.fixture
def unfused(monkeypatch):
    """Numbers of samples that were attended to by product, softmax, product at a time."""
    seen = []
    plain = products._product_softmax_product
    monkeypatch.setattr(
        products, "_product_softmax_product", lambda *tensors: seen.append(len(tensors[0])) or plain(*tensors)
    )
    return seen


def test_unfused_attention_is_as_close_to_float32_as_bfloat16_can_be(unfused):
    inputs = qkv(4)
    with_detour, without = by_both(attention, *inputs)
    assert unfused == [4]
    precise = by_both(attention, *(x.float() for x in inputs))[1]
    for ours, fused, exact in zip(with_detour, without, precise, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - exact).abs().max() < 0.02 * exact.abs().max()
        assert (ours - exact).square().mean().sqrt() < 3 * (fused - exact).square().mean().sqrt()


def test_attention_is_fused_in_float32_and_over_many_tokens(unfused, monkeypatch):
    attention(*qkv(2, dtype=torch.float32))
    monkeypatch.setattr(products, "FUSED_LENGTH", 30)
    attention(*qkv(2))
    assert unfused == []


def test_unfused_attention_stays_within_its_memory(unfused, monkeypatch):
    inputs = qkv(5)
    whole = attention(*inputs)
    monkeypatch.setattr(products, "MOST_SCORES", 2 * 3 * 20 * 30)
    with torch.no_grad():
        assert torch.equal(attention(*inputs), whole)
    assert unfused == [5, 2, 2, 1]
    attention(*inputs)  # with gradients: fused, since all weights would be kept
    monkeypatch.setattr(products, "MOST_SCORES", 3 * 20 * 30 - 1)
    with torch.no_grad():
        attention(*inputs)
    assert unfused == [5, 2, 2, 1]


@pytest.mark.parametrize("tokens", [(16, 16), (68, 68), (288, 288), (256, 300)], ids=str)
def test_unfused_attention_of_a_sample_does_not_depend_on_its_batch(tokens, unfused):
    inputs = qkv(6, 2, *tokens, 64)
    with torch.inference_mode():
        whole = attention(*inputs)
        for count in (1, 2, 5):
            assert torch.equal(attention(*(x[1 : 1 + count] for x in inputs)), whole[1 : 1 + count])
    assert unfused == [6, 1, 2, 5]


# Norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_the_norm_has_the_result_and_gradients_of_pytorch(dtype):
    x = random(3, 7, 4, 64, dtype=dtype).transpose(1, 2)
    with_detour, without = by_both(lambda x, gain: rms_norm(x, gain, 1e-6), x, random(64, seed=1) + 1)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    torch.testing.assert_close(with_detour, without, **tolerance)


@given(st.integers(0, 100), st.integers(1, 200), st.sampled_from([32, 64, 100, 768]))
@settings(max_examples=40, deadline=None)
def test_the_norm_of_a_vector_does_not_depend_on_the_others(first, count, width):
    x, gain = random(300, width), random(width, seed=1)
    part = slice(first, first + count)
    assert torch.equal(rms_norm(x[part], gain, 1e-6), rms_norm(x, gain, 1e-6)[part])


def test_a_vector_of_zeros_has_the_norm_zero_and_a_finite_gradient():
    x = torch.zeros(2, 8, requires_grad=True)
    y = rms_norm(x, torch.ones(8), 1e-6)
    y.sum().backward()
    assert y.count_nonzero() == 0
    torch.testing.assert_close(x.grad, torch.full((2, 8), 1e3))


# SiLU


def test_silu_and_its_gate_are_pytorch_s_with_gradients_and_without():
    x, up = random(9, 50) * 4, random(9, 50, seed=1)
    x[0, :4] = torch.tensor([0.0, -1e4, 1e4, -88.5])
    with torch.no_grad():
        torch.testing.assert_close(silu(x), F.silu(x))
        torch.testing.assert_close(gated(x, up), F.silu(x) * up)
        half = x.bfloat16()
        assert torch.equal(gated(half, half), F.silu(half) * half)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    gated(ours, up).sum().backward()
    (F.silu(theirs) * up).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_silu_of_a_row_does_not_depend_on_the_others_or_on_threads():
    x = random(2003, 2 * 133)
    with torch.no_grad():
        alone = torch.cat([gated(*row.chunk(2, dim=1)) for row in x.split(1)])
        try:
            for threads in (1, 2, 3):  # the last two begin in the middle of a row
                torch.set_num_threads(threads)
                assert torch.equal(gated(*x.chunk(2, dim=1)), alone)
        finally:
            torch.set_num_threads(1)


# Rotations


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["dense", "heads behind tokens", "odd", "dense from an odd place"])
def test_a_rotation_has_the_same_result_and_gradient(dtype, layout):
    rotation = rotary((2, 3, 3), 16, context=2)

    def turn(x):
        if layout == "heads behind tokens":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "odd":  # pairs of which none may be taken for a complex number where it lies
            x = F.pad(x, (1, 0))[..., 1:]
        if layout == "dense from an odd place":
            x = F.pad(x.flatten(), (1, 0))[1:].view(x.shape)
        return rotate(x, rotation)

    with_detour, without = by_both(turn, random(2, 3, 20, 16, dtype=dtype))
    rounding = 1e-6 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(with_detour, without, atol=rounding, rtol=0)


def test_a_rotation_of_no_samples_is_empty():
    x = torch.zeros(0, 3, 20, 16, requires_grad=True)
    for turned in by_both(lambda x: rotate(x, rotary((2, 3, 3), 16, context=2)), x):
        assert [each.shape for each in turned] == [x.shape, x.shape]


def test_without_gradients_a_rotation_takes_the_way_on_which_no_element_depends_on_its_place():
    x, rotation = random(3, 2, 7, 12), rotary((1, 1, 7), 12)
    with torch.inference_mode():
        together = rotate(x, rotation)
        products.use(fast=False)
        assert torch.equal(together, rotate(x, rotation))
