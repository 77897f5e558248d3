"""Everything of one network that changes while it is trained: weights, their moving averages, the optimizer."""

import math
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.processes import Processes
from grncli.training.gradient_averaging import GradientAverager
from grncli.training.objective import Trainable
from grncli.training.sharding import WHOLE, Sharding, distributed, load_weights, local, whole

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter


class TrainingState:
    """A trainable with its optimizer and its moving averages.

    Only the first trainable, the one without a name, has moving averages, one for each decay; the first of them is what
    everything downstream uses.

    Parameters
    ----------
    trainable : whose weights may be without memory in all processes but the first, where they are to be sharded
    sharding : of its state, where the trainable can be sharded
    dtype : of the forward pass
    """

    def __init__(
        self,
        trainable: Trainable,
        device: torch.device,
        processes: Processes,
        sharding: Sharding = WHOLE,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.trainable = trainable
        self.settings = trainable.optimization
        self.module = trainable.module
        self.is_sharded = sharding.is_sharded and trainable.shard is not None
        # ema, ema2, ...
        decays = () if trainable.name else self.settings.decays
        names = [f"ema{number if number > 1 else ''}" for number in range(1, len(decays) + 1)]
        first = dict(self.module.state_dict()) if self.is_sharded and processes.is_main else None
        self.module.to_empty(device="meta") if self.is_sharded else self.module.to(device)
        self.module.train()
        for parameter in self.module.parameters():
            if not parameter.numel():
                parameter.requires_grad_(False)  # there are no shards of an empty gradient
        is_copied = processes.count > 1 and not self.is_sharded
        if is_copied:
            processes.copy_first(self.module.state_dict().values())
        averages = [AveragedModel(self.module, multi_avg_fn=partial(update_ema, decay)) for decay in decays]
        self.averages = dict(zip(names, averages, strict=True))
        if self.is_sharded:
            self._shard(first, device, sharding, dtype)
        matrices = [p for p in self.module.parameters() if p.dim() > 1]
        vectors = [p for p in self.module.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # One pass over the weights instead of a dozen: a seventh of a small network's step on a CPU.
        fused = all(p.device.type in ("cpu", "cuda") for p in matrices)
        self.optimizer = AdamW(groups, lr=self.settings.learning_rate, betas=self.settings.betas, fused=fused)
        self._averager = GradientAverager(self.module.parameters(), processes) if is_copied else None
        if trainable.average is not None:
            for average in self.averages.values():
                load_weights(average.module, trainable.average.weights)
                average.n_averaged.fill_(trainable.average.steps)
                if is_copied:
                    processes.copy_first(average.module.state_dict().values())

    def _shard(
        self, first: Mapping[str, Tensor] | None, device: torch.device, sharding: Sharding, dtype: torch.dtype
    ) -> None:
        """Shard a network without memory, and its averages, then give them the first process's weights."""
        shard = self.trainable.shard
        assert shard is not None
        assert not list(self.module.buffers()), "only parameters are sent into shards"
        shard(self.module, sharding, dtype)
        self.module.to_empty(device=device)
        load_weights(self.module, first)
        for average in self.averages.values():
            shard(average.module, sharding, torch.float32)  # looked at as it is saved
            average.module.to_empty(device=device)
            for own, other in zip(average.module.parameters(), self.module.parameters(), strict=True):
                local(own.detach()).copy_(local(other.detach()))

    @property
    def average(self) -> AveragedModel:
        """The moving average of the first trainable that everything downstream uses."""
        return self.averages["ema"]

    @property
    def averaged(self) -> int:
        """Steps that the moving average has seen."""
        return int(self.average.n_averaged)

    @property
    def rate(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def called(self, name: str) -> str:
        """A number or file of this trainable by its full name."""
        return f"{self.trainable.name}_{name}" if self.trainable.name else name

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the gradients of a loss; of the last one of a step they begin to be averaged over all processes."""
        if isinstance(self.module, FSDPModule):
            self.module.set_requires_gradient_sync(is_last)
            self.module.set_is_last_backward(is_last)
        elif self._averager is not None and is_last:
            self._averager.expect()
        loss.backward()  # type: ignore[no-untyped-call]

    def optimizer_step(self, step: int, steps: int) -> Tensor:
        """One step down the gradients there are, averaged over all processes; returns their norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, step, steps)
        if self._averager is not None:
            self._averager.finish()
        parameters = [parameter for parameter in self.module.parameters() if parameter.grad is not None]
        norm = whole(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        nn.utils.clip_grads_with_norm_(parameters, self.settings.clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for average in self.averages.values():
            average.update_parameters(self.module)
        return norm.detach()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Named tensors of each file of a checkpoint."""
        moments = {
            f"{moment}.{name}": value
            for name, parameter in self.module.named_parameters()
            for moment, value in self.optimizer.state.get(parameter, {}).items()
        }
        files = {self.called("weights"): dict(self.module.state_dict()), self.called("optimizer"): moments}
        return {name: dict(average.module.state_dict()) for name, average in self.averages.items()} | files

    def expected_moments(self, present: Collection[str]) -> dict[str, Tensor]:
        """What a file of moments has to hold: all of a parameter, or none where it never had a gradient."""
        moments: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            if any(f"{moment}.{name}" in present for moment in MOMENTS):
                like, scalar = parameter.detach(), torch.empty((), dtype=parameter.dtype)
                moments |= {f"{moment}.{name}": like if moment != "step" else scalar for moment in MOMENTS}
        return moments

    def load(self, files: Mapping[str, Mapping[str, Tensor]], averaged: int) -> None:
        """Take over the tensors of a checkpoint, by file as in ``tensors``, and the steps its average has seen.

        Into shards go those of the first process, where they are not sharded already.
        """
        load_weights(self.module, files[self.called("weights")])
        moments = files[self.called("optimizer")]
        self.optimizer.state.clear()  # of a checkpoint that proved to be damaged
        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                if (value := moments.get(f"{moment}.{name}")) is not None:
                    # A fused AdamW wants its step count beside the weights, the other on the CPU.
                    device = parameter.device if self.optimizer.defaults["fused"] or moment != "step" else value.device
                    if isinstance(parameter, DTensor) and moment != "step":
                        value = distributed(value, parameter)
                    self.optimizer.state[parameter][moment] = value.to(device)
        for name, average in self.averages.items():
            load_weights(average.module, files[name])
            average.n_averaged.fill_(averaged)


def update_ema(decay: float, average: Any, current: Any, count: Any) -> None:
    """Move tensors towards the current weights in place; ``count`` is how many steps they have seen."""
    # The window grows with the run, so that a short run's average is not mostly its first weights.
    decay = min(decay, (1 + int(count)) / (10 + int(count)))
    # Shards lie alike, and are quicker without their bookkeeping.
    torch._foreach_lerp_(list(map(local, average)), list(map(local, current)), 1 - decay)


def learning_rate(settings: Optimization, step: int, steps: int) -> float:
    """Rate of a step counted from 0: linear warm-up, then constant, or a cosine down to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
