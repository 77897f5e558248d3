"""Generative refinement (paper section 3.2, Eq. 4-8, Algorithms 2 and 3): what a training and a sampling step do.

A *token map* holds one of K categories for each channel of each token: K = 2**M and C channels for GRN_ind, K = 2 and
M * C channels for GRN_bit. The *state* F is a map of which a share, the *selection ratio*, comes from the *drawing* Y
(in training: the truth), and the rest from a *random map*; the *selection* S says which channel is which. Training
fills a random share with the truth and predicts all of it. Sampling starts from the random map alone, predicts
everything, keeps a growing random share of the newest prediction, and so fills, refines and erases until the share
is one.

Maps are integers ``[B, channels, T, h, w]``, logits ``[B, K, channels, T, h, w]``, ratios ``[B]``.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from grncli.conditions import Condition

# Names of what a step did to a channel of a token, see ``changes``.
BLANK, FILLED, KEPT, REFINED, ERASED = range(5)

Predict = Callable[[Tensor, Tensor], Tensor]  # logits of the truth, given a state and its selection ratio (Eq. 5)


def mix(drawing: Tensor, random: Tensor, selection: Tensor) -> Tensor:
    """The state: the drawing where it is selected, the random map elsewhere (Eq. 4); all of one shape."""
    return torch.where(selection, drawing, random)


def select(uniform: Tensor, ratio: Tensor) -> Tensor:
    """The selection map (Eq. 6): true with probability ``ratio [B]`` for each number of ``uniform [B, ...]``."""
    return uniform < over_samples(ratio, uniform)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target categories over all channels of all tokens, in float32 (Eq. 7).

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
    """Draw a category for each channel of each token, and the probability it had.

    Parameters
    ----------
    logits : ``[B, K, ...]``
    uniform : ``[B, ...]`` in [0, 1), one number for each channel: the draw is the category whose share of [0, 1) it
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


class SamplingStep(NamedTuple):
    """What a step of sampling leaves, all of the shape of a map."""

    drawing: Tensor  # the new prediction, uint8
    confidence: Tensor  # probability that it had, float32
    selection: Tensor  # what of the drawing before it was in the state, bool
    state: Tensor  # what the network saw


def training_step(
    predict: Predict, truth: Tensor, random: Tensor, ratio: Tensor, uniform: Tensor, *, relative: bool = False
) -> tuple[Tensor, Tensor]:
    """Loss of a batch (Algorithm 2), and which predictions are right, bool ``[B, ...]``.

    Parameters
    ----------
    truth, random : token maps, the true and a random one
    ratio : share of each state that is true
    uniform : a number in [0, 1) for each channel of each token
    relative : predict which bits of the state are wrong, rather than the bits (Appendix E.3)
    """
    selection = select(uniform, ratio)  # Eq. 6
    state = mix(truth, random, selection)  # Eq. 4
    logits = predict(state, ratio)  # Eq. 5
    target = flips(state, truth) if relative else truth
    return cross_entropy(logits, target), logits.detach().argmax(dim=1) == target


class HalfTrue(NamedTuple):
    """A training sample, maps ``[channels, T, h, w]``: the truth of which the network is to find, given a share."""

    truth: Tensor
    state: Tensor
    share: Tensor  # of the predicted frames, that is true: float32, a number
    clean_first: bool  # the first frame is true in the state, and no part of the loss

    def predicted(self, maps: Tensor) -> Tensor:
        """What of maps or logits ``[..., T, h, w]`` counts."""
        return maps[..., 1:, :, :] if self.clean_first else maps


def half_true(truth: Tensor, random: Tensor, ratio: Tensor, uniform: Tensor, *, clean_first: bool = False) -> HalfTrue:
    """The state of one training sample, and the share that was measured in it, as sampling tells it to the network.

    The arguments are those of ``training_step`` without ``B``.
    """
    selection = uniform < ratio  # Eq. 6
    if clean_first:
        selection[:, 0] = True
    measured = selection[:, 1:] if clean_first else selection
    return HalfTrue(truth, mix(truth, random, selection), measured_ratio(measured[None])[0], clean_first)  # Eq. 4


def packed_training_step(
    predict: Callable[[Sequence[Tensor], Tensor], Sequence[Tensor]],
    samples: Sequence[HalfTrue],
    *,
    relative: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Loss of each sample ``[N]`` (Algorithm 2) for samples of several grids, and which predictions are right.

    Parameters
    ----------
    predict : logits ``[K, channels, T, h, w]`` of each of several states, given the selection ratios ``[N]``
    relative : as of ``training_step``
    """
    logits = predict([sample.state for sample in samples], torch.stack([sample.share for sample in samples]))  # Eq. 5
    losses, right = [], []
    for sample, each in zip(samples, logits, strict=True):
        target = flips(sample.state, sample.truth) if relative else sample.truth
        each, target = sample.predicted(each), sample.predicted(target)
        losses.append(cross_entropy(each[None], target[None]))
        right.append(each.detach().argmax(dim=0) == target)
    return torch.stack(losses), right


def sampling_step(
    predict: Predict,
    drawing: Tensor,
    random: Tensor,
    ratio: Tensor,
    scores: Tensor,
    uniform: Tensor,
    *,
    known: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor] = select,
    measure: Callable[[Tensor], Tensor] | None = None,
    accept: bool = False,
    relative: bool = False,
) -> SamplingStep:
    """One turn of the loop of Algorithm 3: the next drawing.

    Parameters
    ----------
    predict : guidance and temperature are part of it
    drawing, random : the newest prediction, with known tokens in it, and the random map
    ratio : share of the drawing that the state keeps, 0 at first
    scores : what the selection goes by: uniform numbers, or the confidence of the drawing for ``select_confident``
    uniform : a number in [0, 1) for each channel of each token, to draw the prediction with
    known : bool, what of the drawing is always in the state and never drawn again
    choose : the selection, random (``select``, Eq. 6) or by confidence (Appendix E.2)
    measure : the share that the network is told, from the selection; None tells it the nominal one
    accept : keep what is selected for good, as mask-based models do
    relative : the network predicts which bits to flip (Appendix E.3)
    """
    selection = choose(scores, ratio) | known  # Eq. 6
    state = mix(drawing, random, selection)  # Eq. 4
    share = realised_ratio(ratio, known) if measure is None else measure(selection)
    logits = predict(state, share)  # Eq. 5
    if relative:
        logits = unflipped(logits, state)
    drawn, confidence = draw(logits, uniform)
    return SamplingStep(torch.where(selection if accept else known, drawing, drawn), confidence, selection, state)


def realised_ratio(ratio: Tensor, known: Tensor) -> Tensor:
    """The share of the state that is not random: what is known counts in full."""
    share = known.flatten(1).float().mean(dim=1)
    return share + (1 - share) * ratio


def measured_ratio(selection: Tensor) -> Tensor:
    """The share of a selection ``[B, ...]`` that is true, float32 ``[B]``; exact, so that its order does not matter."""
    return selection.flatten(1).sum(dim=1) / selection[0].numel()


def select_confident(confidence: Tensor, ratio: Tensor) -> Tensor:
    """The selection by confidence (Appendix E.2): of each sample the share ``ratio [B]`` that is highest.

    ``confidence [B, ...]`` is the probability that the model gives to what was drawn.
    """
    flat = confidence.flatten(1)
    wanted = (ratio * flat.shape[1]).round().long()
    place = flat.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (place < wanted[:, None]).view_as(confidence)


def flips(state: Tensor, target: Tensor) -> Tensor:
    """The relative target of bits: 1 where the state is wrong (Appendix E.3)."""
    return (state != target).to(state.dtype)


def unflipped(logits: Tensor, state: Tensor) -> Tensor:
    """Logits ``[B, 2, ...]`` of the bits themselves from those of their flips: swapped where the state has a 1."""
    return torch.where(state.bool().unsqueeze(1), logits.flip(1), logits)


def guide(conditional: Tensor, unconditional: Tensor, scale: Tensor) -> Tensor:
    """Classifier-free guidance; ``scale [B]``, 1 for the conditional logits alone."""
    return unconditional + over_samples(scale, conditional) * (conditional - unconditional)


def predict_guided(
    predict: Callable[[Tensor, Tensor, Condition], Tensor],
    state: Tensor,
    ratio: Tensor,
    condition: Condition,
    scale: Tensor,
) -> tuple[Tensor, Tensor]:
    """Conditional logits, and those after guidance, with an unconditional pass for the samples of a scale other than 1.

    Parameters
    ----------
    predict : logits of a state, its ratio and condition
    scale : ``[B]``, of the guidance
    """
    guided = scale != 1
    states, ratios = (torch.cat([part, part[guided]]) for part in (state, ratio))
    both = predict(states, ratios, condition.joined(condition[guided].unconditional()))
    conditional, unconditional = both[: len(state)], both[len(state) :]
    if not len(unconditional):
        return conditional, conditional
    logits = conditional.clone()
    logits[guided] = guide(conditional[guided], unconditional, scale[guided])
    return conditional, logits


def changes(before: Tensor, drawn_before: Tensor, after: Tensor, drawn_after: Tensor) -> Tensor:
    """What a step did to each channel of each token (Fig. 4): BLANK, FILLED, KEPT, REFINED or ERASED, uint8.

    ``before`` and ``after`` are selections, ``drawn_*`` the drawings they select from.
    """
    same = drawn_before == drawn_after
    stayed = torch.where(same, KEPT, REFINED)
    return torch.where(after, torch.where(before, stayed, FILLED), torch.where(before, ERASED, BLANK)).to(torch.uint8)


def over_samples(values: Tensor, like: Tensor) -> Tensor:
    """Values ``[B]`` in the shape that spreads over ``like [B, ...]``."""
    return values.view(-1, *[1] * (like.dim() - 1))
