"""Generative refinement (paper section 3.2, Eq. 4-9, Algorithms 2 and 3): what a training and a sampling step do.

A *token map* holds one of K categories for each element: K = 2**M and C elements a token for GRN_ind, K = 2 and M * C
for GRN_bit. The *state* F is a map of which a share, the *selection ratio*, comes from the *drawing* Y (in training:
the truth), and the rest from a *random map*; the *selection* S says which element is which. Training fills a random
share with the truth and predicts all of it. Sampling starts from the random map alone, predicts everything, keeps a
growing random share of the newest prediction, and so fills, refines and erases until the share is one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

# Names of what a step did to an element, see ``changes``.
BLANK, FILLED, KEPT, REFINED, ERASED = range(5)


def mix(drawing: Tensor, random: Tensor, selection: Tensor) -> Tensor:
    """The state: the drawing where it is selected, the random map elsewhere (Eq. 4); all of one shape."""
    return torch.where(selection, drawing, random)


def select(uniform: Tensor, ratio: Tensor) -> Tensor:
    """The selection map (Eq. 6): true with probability ``ratio [B]`` for each element of ``uniform [B, ...]``."""
    return uniform < _beside(ratio, uniform)


def select_confident(confidence: Tensor, ratio: Tensor) -> Tensor:
    """The selection by confidence (Appendix E.2): of each sample the share ``ratio [B]`` that is highest.

    ``confidence [B, ...]`` is the probability that the model gives to what was drawn.
    """
    flat = confidence.flatten(1)
    wanted = (ratio * flat.shape[1]).round().long()
    place = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (place < wanted[:, None]).view_as(confidence)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target categories over all elements, in float32 (Eq. 7).

    ``logits [B, K, ...]``, ``target [B, ...]`` integers.
    """
    return F.cross_entropy(logits.float(), target.long())


def entropy(logits: Tensor) -> Tensor:
    """Mean entropy of the prediction for each sample, in units of log K, 0 to 1 (Eq. 8); ``[B, K, ...]`` to ``[B]``."""
    log_p = logits.float().log_softmax(dim=1)
    # A category of probability 0 counts nothing, where 0 * -inf would be NaN.
    each = -(log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(dim=1)
    return (each.flatten(1).mean(dim=1) / math.log(logits.shape[1])).clamp(0, 1)


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a category for each element, and the probability it had.

    Parameters
    ----------
    logits : ``[B, K, ...]``
    uniform : ``[B, ...]`` in [0, 1), one number for each element: the draw is the category whose share of [0, 1) it
        falls into

    Returns
    -------
    uint8 ``[B, ...]`` and float32 ``[B, ...]``
    """
    p = logits.float().softmax(dim=1)
    below = p.cumsum(dim=1)
    # The sum may fall short of 1, and what lies above it must not go to a category of probability 0.
    below = below / below[:, -1:]
    chosen = (uniform.unsqueeze(1) >= below[:, :-1]).sum(dim=1)
    return chosen.to(torch.uint8), p.gather(1, chosen.unsqueeze(1)).squeeze(1)


def flips(state: Tensor, target: Tensor) -> Tensor:
    """The relative target of bits: 1 where the state is wrong (Appendix E.3)."""
    return (state != target).to(state.dtype)


def unflipped(logits: Tensor, state: Tensor) -> Tensor:
    """Logits ``[B, 2, ...]`` of the bits themselves from those of their flips: swapped where the state has a 1."""
    return torch.where(state.bool().unsqueeze(1), logits.flip(1), logits)


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance; ``scale [B]``, 1 for the conditional logits alone."""
    return unconditional + _beside(scale, conditional) * (conditional - unconditional)


def changes(before: Tensor, drawn_before: Tensor, after: Tensor, drawn_after: Tensor) -> Tensor:
    """What a step did to each element (Fig. 4): BLANK, FILLED, KEPT, REFINED or ERASED, uint8.

    ``before`` and ``after`` are selections, ``drawn_*`` the drawings they select from.
    """
    same = drawn_before == drawn_after
    stayed = torch.where(same, KEPT, REFINED)
    return torch.where(after, torch.where(before, stayed, FILLED), torch.where(before, ERASED, BLANK)).to(torch.uint8)


def logit_normal(normal: Tensor, mean: float, deviation: float) -> Tensor:
    """Selection ratios of training: the logistic function of a normal number."""
    return torch.sigmoid(normal * deviation + mean)


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


@dataclass(frozen=True)
class Fixed:
    """The same number of steps for every sample: the ratio grows in equal shares, or along a cosine, slow at first."""

    count: int = 50
    shape: Literal["linear", "cosine"] = "linear"
    decision_step = None  # no entropy is asked for

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"steps is {self.count}, expected 1 or more")

    @property
    def most_steps(self) -> int:
        """Steps that a sample takes at most."""
        return self.count

    def steps(self, entropy: Tensor) -> Tensor:
        """Steps in all ``[B]``."""
        return torch.full_like(entropy, self.count)

    def ratio(self, step: Tensor, steps: Tensor) -> Tensor:
        """Selection ratio after ``step`` of ``steps`` steps, both float ``[B]``; 1 at the end."""
        if self.shape == "linear":
            return (step / steps).clamp(0, 1)
        # The cosine of a rounded pi / 2 is not 0.
        return torch.where(step >= steps, 1.0, 1 - torch.cos(math.pi / 2 * step / steps)).clamp(0, 1)


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

    def ratio(self, step: Tensor, steps: Tensor) -> Tensor:
        """Selection ratio after ``step`` of ``steps`` steps: l_t of Eq. 9."""
        start = self.warmup_steps / self.alpha
        later = start + (1 - start) * (step - self.warmup_steps) / (steps - self.warmup_steps)
        later = torch.where(step >= steps, 1.0, later)  # rounded, it may fall short of that
        return torch.where(step <= self.warmup_steps, step / self.alpha, later).clamp(0, 1)


Schedule = Fixed | Complexity


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

    start = first_above(lambda found: found >= mean_steps)
    reached = mean(start)
    # In the middle of all b that give this mean, away from where rounding decides.
    return replace(schedule, k=k, b=(start + first_above(lambda found: found > reached)) / 2)


def _beside(values: Tensor, elements: Tensor) -> Tensor:
    """``[B]`` in the shape that spreads over ``[B, ...]``."""
    return values.view(-1, *[1] * (elements.dim() - 1))
