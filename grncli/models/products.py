"""What transformers compute most, by the fastest way that a processor has: linear layers, attention, norms, rotations.

On CUDA and MPS this is what PyTorch does by itself. On a CPU there are four detours, each taken by a fixed rule of
processor, number format and sizes of one sample. Nothing is timed, and the number of samples decides nothing that is
computed without gradients: a run that is repeated gives the same bits, and a sample does not depend on its batch.
Measured with PyTorch 2.13 on an AMD EPYC of family 26 (Zen 5), 2 threads:

- float32 linear layers go through oneDNN on AMD processors with AVX-512, where PyTorch's own go to MKL, which keeps to
  AVX2 there: 199 against 431 GFLOP/s at 2304 rows of 768 to 2304. Held to AVX2, oneDNN is only 1.1 times faster.
- bfloat16 attention over less than ``FUSED_LENGTH`` tokens is product, softmax, product where the processor multiplies
  bfloat16: forward and backward 46 against 93 ms at 8 x 12 heads x 288 tokens (one thread). Float32 stays fused.
- The norm keeps one number a vector for the backward pass, and passes over its input less often than PyTorch, which has
  no fused one on a CPU: forward and backward 5 against 24 ms at 2304 x 768 (one thread).
- With gradients, pairs of numbers turn as complex ones, in one pass: forward and backward 1.5 against 10 ms in float32,
  1.8 against 13 ms in bfloat16 at 8 x 12 heads x 288 tokens (one thread). Without gradients they do not, as a complex
  product rounds an element by where it lies, too.

SiLU has a way of its own on a CPU for another reason: PyTorch's rounds an element by where it lies (see `silu`). With
the product behind it in place, a step takes as long as before, within 1 %.

``use(fast=False)`` turns the four off; on the command line ``grn --plain-products COMMAND``.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from grncli.runtime.devices import multiplies_faster_by_onednn, pick_dtype

FASTER_BY_ONEDNN = multiplies_faster_by_onednn()
FAST_BFLOAT16 = pick_dtype("auto", torch.device("cpu")) == torch.bfloat16

SMALLEST_WEIGHT = 1 << 15  # elements; below, calling oneDNN (10 us) costs more than it saves at a few rows
FUSED_LENGTH = 1024  # keys from which on fused attention is as fast in bfloat16, forward
MOST_SCORES = 1 << 26  # elements of unfused attention at a time: 128 MiB

_fast = True


def use(*, fast: bool) -> None:
    """Take the detours of this module where they are faster (the default), or PyTorch's own way everywhere."""
    global _fast
    _fast = fast


class Linear(nn.Linear):
    """A linear layer."""

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``."""
        if _through_onednn(input, self.weight):
            return _OneDnnLinear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return super().forward(input)


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a mask.

    Parameters
    ----------
    query : ``[B, heads, N, d]``
    key, value : ``[B, heads, L, d]``

    Returns
    -------
    ``[B, heads, N, d]``. Unfused, scores and weights are rounded to the number format of the inputs.
    """
    samples = MOST_SCORES // max(1, query.shape[1] * query.shape[2] * key.shape[2])
    if not _unfused(query, key) or samples == 0:
        return F.scaled_dot_product_attention(query, key, value)
    if len(query) <= samples:
        return _product_softmax_product(query, key, value)
    if torch.is_grad_enabled():  # all weights would be kept for the backward pass
        return F.scaled_dot_product_attention(query, key, value)
    pieces = zip(*(torch.split(tensor, samples) for tensor in (query, key, value)), strict=True)
    return torch.cat([_product_softmax_product(*piece) for piece in pieces])


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Scale vectors ``[..., width]`` to root mean square 1, then by ``gain [width]``; in the number format of ``x``."""
    gain = gain.to(x.dtype)
    if _fast and x.device.type == "cpu" and x.dtype != torch.float64:  # its sums are float32
        return _RMSNormOnCpu.apply(x, gain, epsilon)  # type: ignore[no-untyped-call]
    return F.rms_norm(x, gain.shape, gain, epsilon)


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``; in float32 on a CPU, without gradients, the same bits of an element wherever it lies.

    PyTorch's own rounds the last few elements of what a thread computes in another way than the others, and the number
    of rows says which those are.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        return F.silu(x)
    below = torch.neg(x).exp_().add_(1)
    return torch.div(x, below, out=below)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up``, both of one shape; without gradients in one piece of new memory, whose pages cost most."""
    opened = silu(gate)
    return opened * up if torch.is_grad_enabled() else opened.mul_(up)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn each pair of neighbouring numbers of ``x [..., N, d]`` by its angle.

    ``rotation`` is cosines and sines, float32 ``[2, N, d / 2]`` or of any shape that spreads over ``x`` behind the 2.
    """
    if _as_complex(x):
        return _Rotation.apply(x, torch.complex(*rotation.unbind()))  # type: ignore[no-untyped-call]
    cos, sin = rotation.to(x.dtype).unbind()
    first, second = x.view(*x.shape[:-1], x.shape[-1] // 2, 2).unbind(-1)
    return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)


def _as_complex(x: Tensor) -> bool:
    return (
        _fast
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.compiler.is_compiling()  # which knows no complex numbers
    )


def _through_onednn(x: Tensor, weight: Tensor) -> bool:
    # The number of rows plays no part, since a row would depend on how many there are.
    return (
        _fast
        and FASTER_BY_ONEDNN
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.numel() >= SMALLEST_WEIGHT
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def _unfused(query: Tensor, key: Tensor) -> bool:
    return (
        _fast
        and FAST_BFLOAT16
        and query.device.type == "cpu"
        and query.dtype == torch.bfloat16
        and key.shape[2] < FUSED_LENGTH
    )


def _product_softmax_product(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):  # which would compute the softmax in float32, at twice the time
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)
        return scores.softmax(dim=-1) @ value


# An operator of our own, because torch.compile takes oneDNN's for one with constant weights.
@torch.library.custom_op("grncli::product", mutates_args=())
def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias`` by oneDNN; a row does not depend on the others, however many, if there is one."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@onednn_product.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))


class _OneDnnLinear(torch.autograd.Function):
    """Three products of oneDNN: forward, and the gradients of input and weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = onednn_product(rows, weight.t(), None).view(x.shape)
        if ctx.needs_input_grad[1]:
            of_weight = onednn_product(rows.t(), x.reshape(-1, x.shape[-1]).t(), None)
        if ctx.needs_input_grad[2]:
            of_bias = rows.sum(0)
        return of_x, of_weight, of_bias


class _RMSNormOnCpu(torch.autograd.Function):
    """The norm; sums and the number that is kept of a vector, the inverse of its root mean square, are float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
        inverse = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, gain, inverse)
        return _wide_product(x, inverse).mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, gain, inverse = ctx.saved_tensors
        gain = gain.float()
        normed = _wide_product(x, inverse)
        products = gradient * normed
        of_gain = products.flatten(0, -2).sum(0).to(x.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, of_gain, None
        along = (products @ gain).div_(-x.shape[-1]).unsqueeze(-1)
        scaled = _wide_product(gradient, gain)
        return scaled.addcmul_(normed, along).mul_(inverse).to(x.dtype), of_gain, None


def _wide_product(x: Tensor, factor: Tensor) -> Tensor:
    """``x * factor`` in float32, new; several times faster than to leave the conversion to the product."""
    wide = x.float()
    return wide * factor if wide is x else wide.mul_(factor)


class _Rotation(torch.autograd.Function):
    """Complex numbers times those of ``turns``, as pairs of real ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, turns: Tensor) -> Tensor:
        ctx.save_for_backward(turns)
        return _turned(x, turns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (turns,) = ctx.saved_tensors
        return _turned(gradient, turns.conj().resolve_conj()), None


def _turned(x: Tensor, turns: Tensor) -> Tensor:
    wide = x.float()
    *steps, last = wide.stride()
    if last != 1 or any(step % 2 for step in (*steps, wide.storage_offset())):
        wide = wide.clone(memory_format=torch.contiguous_format)  # also what is contiguous, from an odd place on
    pairs = torch.view_as_complex(wide.view(*wide.shape[:-1], wide.shape[-1] // 2, 2))
    turned = torch.mul(pairs, turns, out=torch.empty(pairs.shape, dtype=turns.dtype))  # laid out as attention reads it
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)
