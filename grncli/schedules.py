"""How far refinement is after each step: schedules of the selection ratio (paper Eq. 9, facts section 5).

A schedule gives a sample its number of steps, and the selection ratio after each of them. Beside them: where in a
schedule samples are guided, how training draws ratios, and how k and b of Eq. 9 are fitted to a generator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

TEXT_MIN_STEPS = 10  # T_min of the paper for text-to-image


@dataclass(frozen=True)
class EqualSteps:
    """The same number of steps for every sample."""

    count: int = 50
    decision_step = None  # no entropy is asked for

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"steps is {self.count}, expected 1 or more")

    @property
    def most_steps(self) -> int:
        """Steps that a sample takes."""
        return self.count

    def steps(self, entropy: Tensor) -> Tensor:
        """Steps in all ``[B]``."""
        return torch.full_like(entropy, self.count)


@dataclass(frozen=True)
class Fixed(EqualSteps):
    """A fixed schedule: the ratio grows in equal shares, or along a cosine, slow at first."""

    shape: Literal["linear", "cosine"] = "linear"

    def ratio(self, step: Tensor, steps: Tensor) -> Tensor:
        """Selection ratio after ``step`` of ``steps`` steps, both float ``[B]``; 1 at the end."""
        if self.shape == "linear":
            return (step / steps).clamp(0, 1)
        # The cosine of a rounded pi / 2 is not 0.
        return torch.where(step >= steps, 1.0, 1 - torch.cos(math.pi / 2 * step / steps)).clamp(0, 1)


@dataclass(frozen=True)
class Cosine(EqualSteps):
    """The released schedule of text-conditional generators: as many steps for every sample, along a shifted cosine.

    Its last step does not fill the state up: the sample is what is predicted from the share ``end``.

    Parameters
    ----------
    count : T_max, steps
    end : selection ratio of the last step: 0.999 in the release of May, 0.95 in that of June
    shift : the share of noise is moved by noise' = shift * noise / (1 + (shift - 1) * noise); 1 does not
    """

    end: float = 0.999
    shift: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.end <= 1:
            raise ValueError(f"end is {self.end}, expected more than 0, and 1 at most")
        if not 0 < self.shift < math.inf:
            raise ValueError(f"shift is {self.shift}, expected a finite number above 0")

    def ratio(self, step: Tensor, steps: Tensor) -> Tensor:
        """Selection ratio after ``step`` of ``steps`` steps, both float ``[B]``: that of the step that follows."""
        done = (step / (steps - 1).clamp_min(1)).clamp(0, 1)
        return self.end * (1 - torch.cos(math.pi / 2 * shift_noise(done, self.shift)))


@dataclass(frozen=True)
class Complexity:
    """The complexity-aware schedule (Eq. 9): the more certain the model, the fewer steps.

    Parameters
    ----------
    k, b : slope and offset of the steps that follow the warm-up, as a function of the entropy (Eq. 8)
    min_steps, max_steps : T_min and T_max, of all steps
    warmup_steps : t0, steps that every sample takes before its entropy decides
    alpha : steps of the linear schedule that the warm-up follows
    """

    k: float = 600.0
    b: float = -547.0
    min_steps: int = 20
    max_steps: int = 50
    warmup_steps: int = 5
    alpha: int = 50

    def __post_init__(self) -> None:
        if not (math.isfinite(self.k) and math.isfinite(self.b)):
            raise ValueError(f"k is {self.k} and b is {self.b}, expected finite numbers")
        if not 0 <= self.warmup_steps < self.min_steps <= self.max_steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}, min_steps {self.min_steps} and max_steps {self.max_steps}, "
                "expected 0 <= warmup < min <= max"
            )
        if self.alpha <= self.warmup_steps:
            raise ValueError(f"alpha is {self.alpha}, expected more than warmup_steps={self.warmup_steps}")

    @property
    def decision_step(self) -> int:
        """The step, counted from 0, whose entropy decides."""
        return self.warmup_steps

    @property
    def most_steps(self) -> int:
        """Steps that a sample takes at most."""
        return self.max_steps

    def steps(self, entropy: Tensor) -> Tensor:
        """Steps in all, t0 + d with d = k * H + b clipped and rounded: a part of a step would cost a whole one."""
        d = (self.k * entropy + self.b).round()
        return d.clamp(self.min_steps - self.warmup_steps, self.max_steps - self.warmup_steps) + self.warmup_steps

    def temperature_factor(self, step: Tensor, steps: Tensor) -> Tensor:
        """What the release multiplies the temperature of ``step`` by: less than 1 for samples of few steps."""
        later = ((steps - self.warmup_steps - 10) / 40 + 0.5).clamp(0.5, 1)
        return torch.where(step >= self.decision_step, later, 1.0)

    def ratio(self, step: Tensor, steps: Tensor) -> Tensor:
        """Selection ratio after ``step`` of ``steps`` steps: l_t of Eq. 9."""
        start = self.warmup_steps / self.alpha
        later = start + (1 - start) * (step - self.warmup_steps) / (steps - self.warmup_steps)
        later = torch.where(step >= steps, 1.0, later)  # rounded, it may fall short of that
        return torch.where(step <= self.warmup_steps, step / self.alpha, later).clamp(0, 1)


Schedule = Fixed | Cosine | Complexity


def fit(schedule: Complexity, entropy: Tensor, mean_steps: float, k: float | None = None) -> Complexity:
    """The schedule whose mean number of steps over samples of these entropies ``[n]`` is ``mean_steps``.

    Parameters
    ----------
    schedule : gives the range of steps and the warm-up
    k : slope; None takes the one at which the middle nine tenths of the entropies span the whole range

    Usable k and b depend on the model: the entropies of one at the decision step differ by a few hundredths only.
    """
    low, high = float(schedule.min_steps), float(schedule.max_steps)
    if not low <= mean_steps <= high:
        raise ValueError(f"target_steps is {mean_steps}, expected {low:.0f} to {high:.0f}, the range of steps")
    entropy = entropy.double()
    if k is None:
        spread = float(entropy.quantile(0.95) - entropy.quantile(0.05))
        k = (high - low) / spread if spread > 0 else 0.0

    def mean(b: float) -> float:
        return float(replace(schedule, k=k, b=b).steps(entropy).mean())

    def first_above(wanted: Callable[[float], bool]) -> float:
        """The smallest b from which on the mean is as wanted; it grows with b, in steps of the rounding."""
        below, above = -abs(k) - high, abs(k) + high
        for _ in range(60):
            middle = (below + above) / 2
            below, above = (below, middle) if wanted(mean(middle)) else (middle, above)
        return above

    start = first_above(lambda steps: steps >= mean_steps)
    reached = mean(start)
    # In the middle of all b that give this mean, away from where rounding decides.
    return replace(schedule, k=k, b=(start + first_above(lambda steps: steps > reached)) / 2)


def guidance_scale(ratio: Tensor, scale: float, low: float, high: float) -> Tensor:
    """Scale of the guidance at each selection ratio ``[B]``; 1 where the unconditional pass is not needed.

    The interval is open: ``low < ratio < high``, and ``low = 0`` starts at once. A negative ``low`` turns the guidance
    up gradually instead: cond + scale * w * (cond - uncond) with w = (1 - cos(pi * ratio**-low)) / 2 (facts section 3).
    """
    if low < 0:
        weight = (1 - torch.cos(math.pi * ratio.clamp_min(0) ** -low)) / 2
        return torch.where(ratio < high, 1 + scale * weight, 1.0)
    inside = (ratio < high) & ((ratio > low) | (low == 0))
    return torch.where(inside, scale, 1.0)


def shift_noise(ratio: Tensor, shift: float) -> Tensor:
    """Selection ratios with their share of noise moved: noise' = shift * noise / (1 + (shift - 1) * noise)."""
    return ratio / (ratio + shift * (1 - ratio)) if shift != 1 else ratio


def logit_normal(normal: Tensor, mean: float, deviation: float) -> Tensor:
    """Selection ratios of training: the logistic function of a normal number."""
    return torch.sigmoid(normal * deviation + mean)
