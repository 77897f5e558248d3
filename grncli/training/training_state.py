"""Everything of one network that changes while it is trained: weights, their moving averages, the optimizer."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from grncli.runs.tokenizer_recipe import Optimization
from grncli.runtime.processes import Processes
from grncli.training.objective import Trainable

MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW, for each parameter


class TrainingState:
    """A trainable with its optimizer and its moving averages.

    Only the first trainable, the one without a name, has moving averages, one for each decay; the first of them is what
    everything downstream uses.
    """

    def __init__(self, trainable: Trainable, device: torch.device, processes: Processes) -> None:
        self.trainable = trainable
        self.module = trainable.module.to(device).train()
        self.settings = trainable.optimization
        self.processes = processes
        matrices = [p for p in self.module.parameters() if p.dim() > 1]
        vectors = [p for p in self.module.parameters() if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # One pass over the weights instead of a dozen: a seventh of a small network's step on a CPU.
        fused = all(p.device.type in ("cpu", "cuda") for p in matrices)
        self.optimizer = AdamW(groups, lr=self.settings.learning_rate, betas=self.settings.betas, fused=fused)
        decays = () if trainable.name else self.settings.decays
        # ema, ema2, ...
        self.averages = {
            f"ema{number if number > 1 else ''}": AveragedModel(self.module, multi_avg_fn=partial(update_ema, decay))
            for number, decay in enumerate(decays, start=1)
        }

        if trainable.average is not None:
            for average in self.averages.values():
                average.module.load_state_dict(trainable.average.weights)
                average.n_averaged.fill_(trainable.average.steps)

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

    def optimizer_step(self, step: int, steps: int) -> Tensor:
        """One step down the gradients there are, averaged over all processes; returns their norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, step, steps)
        self.processes.average_gradients(self.module.parameters())
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)
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

    def expected_moments(self, present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a file of moments has to hold: all of a parameter, or none where it never had a gradient."""
        moments: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            if any(f"{moment}.{name}" in present for moment in MOMENTS):
                like = parameter.detach()
                moments |= {f"{moment}.{name}": like if moment != "step" else like.new_empty(()) for moment in MOMENTS}
        return moments

    def load(self, files: Mapping[str, Mapping[str, Tensor]], averaged: int) -> None:
        """Take over the tensors of a checkpoint, by file as in ``tensors``, and the steps its average has seen."""
        self.module.load_state_dict(files[self.called("weights")])
        moments = files[self.called("optimizer")]
        for name, parameter in self.module.named_parameters():
            for moment in MOMENTS:
                if (value := moments.get(f"{moment}.{name}")) is not None:
                    # A fused AdamW wants its step count beside the weights, the other on the CPU.
                    device = parameter.device if self.optimizer.defaults["fused"] or moment != "step" else value.device
                    self.optimizer.state[parameter][moment] = value.to(device)
        for name, average in self.averages.items():
            average.module.load_state_dict(files[name])
            average.n_averaged.fill_(averaged)


def update_ema(decay: float, average: Any, current: Any, count: Any) -> None:
    """Move tensors towards the current weights in place; ``count`` is how many steps they have seen."""
    # The window grows with the run, so that a short run's average is not mostly its first weights.
    decay = min(decay, (1 + int(count)) / (10 + int(count)))
    torch._foreach_lerp_(average, current, 1 - decay)


def learning_rate(settings: Optimization, step: int, steps: int) -> float:
    """Rate of a step counted from 0: linear warm-up, then constant, or a cosine down to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
