"""What is applied to a network from outside before it is trained, one function for each network.

Activation checkpointing, compilation, sharding, and batch norms over all processes. The networks know nothing of it,
and the names in their state dicts stay. Copies of a network, such as its moving averages, are checkpointed too, not
compiled.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from grncli.models.generator import Generator
from grncli.models.layers import CausalConv3d, ResidualBlock
from grncli.models.tokenizer import Tokenizer
from grncli.runs.tokenizer_recipe import Training
from grncli.runtime.processes import Processes
from grncli.training.sharding import Sharding


def wrap_generator(network: Generator, training: Training) -> None:
    """Checkpoint the activations of the blocks, and compile them, as the recipe asks."""
    if training.activation_checkpointing:
        checkpoint_activations(network.transformer_blocks)
    if training.compile:
        # Blocks of one kind share what is compiled, whatever their number.
        for block in network.transformer_blocks:
            block.compile()


def wrap_tokenizer(network: Tokenizer, training: Training) -> None:
    """Checkpoint the activations of the residual blocks, and compile encoder and decoder, as the recipe asks."""
    if training.activation_checkpointing:
        checkpoint_activations(module for module in network.modules() if isinstance(module, ResidualBlock))
    if training.compile:
        network.encoder.compile()
        network.decoder.compile()


def shard_generator(network: Generator, sharding: Sharding, dtype: torch.dtype) -> None:
    """Shard the weights block by block; the rest, which reads tokens and makes logits, stays in float32."""
    sharding.apply(network, network.transformer_blocks, dtype)
    for method in network.entries:
        register_fsdp_forward_method(network, method)


def shard_tokenizer(network: Tokenizer, sharding: Sharding, dtype: torch.dtype) -> None:
    """Shard the weights stage by stage; the rest, which makes features and pixels, stays in float32."""
    for module in network.modules():
        if isinstance(module, CausalConv3d):
            module.keeps_slice = False  # weights come and go, in the same place and without a new version
    sharding.apply(network, [*network.encoder.stages, *network.decoder.stages], dtype)


def wrap_discriminators(network: nn.Module, processes: Processes) -> None:
    """Let batch norms take their statistics over the batches of all processes."""
    if processes.count > 1:
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = _SharedBatchNorm


def checkpoint_activations(modules: Iterable[nn.Module]) -> None:
    """Let modules keep only their inputs for the backward pass, and compute the rest again there."""
    for module in modules:
        # Partial and bound method are copied with the module, which a closure would tie to this one.
        module.forward = partial(_recomputed, module.forward)


def _recomputed(forward: Any, *inputs: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _SumOverProcesses.forward(ctx, gradient)


class _SharedBatchNorm(_BatchNorm):
    """Batch norm over the batches of all processes, which have the same size.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims = [0, *range(2, x.dim())]
        count = dist.get_world_size()
        moments = torch.stack([x.float().mean(dims), x.float().square().mean(dims)])
        mean, square = (_SumOverProcesses.apply(moments) / count).unbind()  # type: ignore[no-untyped-call]
        variance = square - mean.square()
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * count)
        scale, shift = (value.view(-1, *[1] * (x.dim() - 2)) for value in (self.weight, self.bias))
        # By hand: F.batch_norm takes given moments for constants, without a gradient.
        mean, variance = (value.view_as(scale) for value in (mean, variance))
        return ((x - mean) * (variance + self.eps).rsqrt() * scale + shift).to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def _remember(self, mean: Tensor, variance: Tensor, size: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum if self.momentum is not None else 0.1
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance * size / max(1, size - 1), momentum)
