"""The loop of Algorithm 3 for many samples at once, each at a step of its own.

A sample that has taken its steps leaves, and the next one takes its place: a schedule that gives certain samples fewer
steps then saves their time. What a sample becomes depends on its number alone, not on those it shares a batch with.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from grncli.conditions import Condition, Rows
from grncli.models.generator import Generator
from grncli.models.transformer import Grid
from grncli.refinement import (
    SamplingStep,
    entropy,
    measured_ratio,
    over_samples,
    predict_guided,
    sampling_step,
    select,
    select_confident,
)
from grncli.rng import Purpose, categories, uniform
from grncli.sampling.steady_network import SteadyNetwork
from grncli.schedules import Complexity, Schedule, guidance_scale

Selection = Literal["random", "confidence", "mask"]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How samples are refined; the paper's best for GRN_ind-B."""

    schedule: Schedule
    guidance: float = 2.35
    guidance_interval: tuple[float, float] = (0.44, 1.0)
    temperature: float = 1.31
    adapt_temperature: bool = False  # lower for samples of few steps, as the release does (facts section 5)
    selection: Selection = "random"
    relative: bool = False  # the network predicts which bits to flip
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """A sample to make.

    Parameters
    ----------
    condition : one row
    known_tokens : uint8 ``[channels, T, h, w]``, of which those stay where the mask ``known`` is true
    """

    number: int
    condition: Condition
    known_tokens: Tensor | None = None
    known: Tensor | None = None


@dataclass(frozen=True)
class TraceStep:
    """What a step of a traced sample left; all ``[channels, T, h, w]``, on the CPU."""

    ratio: float
    drawing: Tensor  # the newest prediction, and with ``mask`` the tokens accepted before it
    selection: Tensor
    state: Tensor


@dataclass(frozen=True)
class FinishedSample:
    """A sample that has taken all its steps."""

    request: Request
    drawing: Tensor  # uint8 [channels, T, h, w], on the CPU
    steps: int
    nfe: int  # number of function evaluations: passes of the network, the unconditional ones among them
    entropy: float  # Eq. 8 at the step that decides
    trace: list[TraceStep] = field(default_factory=list)


@dataclass(frozen=True)
class InFlight(Rows):
    """The samples in flight, a row each; ``steps``, ``entropy`` and ``nfe`` are filled in where they lie."""

    number: Tensor  # int64 [B]
    condition: Condition
    step: Tensor  # float32 [B], steps done
    steps: Tensor  # float32 [B], in all; the most there can be until the sample's entropy has decided
    entropy: Tensor  # float32 [B]
    nfe: Tensor  # int64 [B]
    random: Tensor  # uint8 [B, channels, T, h, w], like all below
    drawing: Tensor
    confidence: Tensor  # float32, that of the drawing
    known: Tensor  # bool


class Sampler:
    """Refines samples of one latent grid.

    Parameters
    ----------
    network : in evaluation mode, on the device to compute on, in the number format to compute in
    batch : samples in flight at once; None takes what fills the device
    traced : numbers of samples whose steps are kept
    condition_tokens : that the condition adds to the sequence of a sample, about: with texts their mean length, and 1
    """

    def __init__(
        self,
        network: Generator,
        grid: Grid,
        settings: SamplingSettings,
        *,
        batch: int | None = None,
        traced: Collection[int] = (),
        condition_tokens: int = 0,
    ) -> None:
        self.settings = settings
        self.network = SteadyNetwork(network, grid, condition_tokens)
        self.batch = batch or self.network.call_rows
        self._schedule = settings.schedule
        self._categories = network.config.codec.categories
        self._shape = (network.config.codec.token_channels, *grid)
        decision = self._schedule.decision_step
        # A fixed schedule decides nothing; its samples' entropies are those at the paper's step, to compare.
        self._decision = min(Complexity.warmup_steps, self._schedule.most_steps - 1) if decision is None else decision
        self._traces: dict[int, list[TraceStep]] = {number: [] for number in traced}

    @torch.inference_mode()
    def run(
        self, requests: Iterable[Request], stop_when: Callable[[], bool] = lambda: False
    ) -> Iterator[FinishedSample]:
        """Refine one sample after the other, up to ``batch`` at once; those of fewer steps come earlier.

        ``stop_when`` is asked between steps; True gives up the samples in flight.
        """
        waiting = iter(requests)
        asked: list[Request] = []  # a request for each row
        batch: InFlight | None = None
        while True:
            arriving = list(islice(waiting, self.batch - len(asked)))
            if arriving:
                begun = self._begin(arriving)
                batch = begun if batch is None else batch.joined(begun)
                asked += arriving
            if batch is None or not asked or stop_when():
                return
            batch = self._advance(batch)
            over = batch.step >= batch.steps
            if bool(over.any()):
                yield from self._finish(batch[over], [asked[i] for i in over.nonzero().flatten().tolist()])
                asked = [asked[i] for i in (~over).nonzero().flatten().tolist()]
                batch = batch[~over]

    def _begin(self, requests: list[Request]) -> InFlight:
        count, device = len(requests), self.network.device
        number = torch.tensor([request.number for request in requests], device=device)
        random = categories(self.settings.seed, number, self._categories, self._shape)
        drawing, known = random.clone(), torch.zeros_like(random, dtype=torch.bool)
        for row, request in enumerate(requests):
            if request.known_tokens is not None and request.known is not None:
                known[row] = request.known.to(device)
                drawing[row] = torch.where(known[row], request.known_tokens.to(device), random[row])
        first, *others = (request.condition for request in requests)
        return InFlight(
            number=number,
            condition=first.joined(*others).prepared(self.network).to(device),
            step=torch.zeros(count, device=device),
            steps=torch.full((count,), float(self._schedule.most_steps), device=device),
            entropy=torch.zeros(count, device=device),
            nfe=torch.zeros(count, dtype=torch.int64, device=device),
            random=random,
            drawing=drawing,
            confidence=torch.zeros(random.shape, device=device),
            known=known,
        )

    def _advance(self, batch: InFlight) -> InFlight:
        """One step of every sample in flight."""
        selection, step = self.settings.selection, batch.step.long()
        predicted = batch.condition.predicted
        ratio = self._schedule.ratio(batch.step, batch.steps)
        if selection == "confidence":
            scores = batch.confidence
        else:
            # The same numbers at every step make a mask that only grows.
            drawn_at = torch.zeros_like(step) if selection == "mask" else step - 1
            scores = self._uniform(batch, drawn_at, Purpose.SELECTION)
        done = sampling_step(
            lambda state, share: self._predict(batch, state, share),
            batch.drawing,
            batch.random,
            ratio,
            scores,
            self._uniform(batch, step, Purpose.PREDICTION),
            known=batch.known,
            choose=select_confident if selection == "confidence" else select,
            measure=(lambda chosen: measured_ratio(predicted(chosen))) if batch.condition.measured else None,
            accept=selection == "mask",
            relative=self.settings.relative,
        )
        if self._traces:
            self._trace(batch, ratio, done)
        return replace(batch, step=batch.step + 1, drawing=done.drawing, confidence=done.confidence)

    def _predict(self, batch: InFlight, state: Tensor, ratio: Tensor) -> Tensor:
        """Logits after guidance and temperature; where the step decides, the entropy settles the number of steps."""
        settings = self.settings
        scale = torch.ones_like(ratio)
        if batch.condition.guides:
            scale = guidance_scale(ratio, settings.guidance, *settings.guidance_interval)
        conditional, logits = predict_guided(self.network, state, ratio, batch.condition, scale)
        batch.nfe.add_(1 + (scale != 1).long())
        deciding = batch.step == self._decision
        if bool(deciding.any()):
            batch.entropy[deciding] = entropy(batch.condition.predicted(conditional)[deciding])
            batch.steps[deciding] = self._schedule.steps(batch.entropy[deciding])
        temperature = torch.full_like(batch.step, settings.temperature)
        if settings.adapt_temperature and isinstance(self._schedule, Complexity):
            temperature = temperature * self._schedule.temperature_factor(batch.step, batch.steps)
        return logits / over_samples(temperature, logits)

    def _uniform(self, batch: InFlight, step: Tensor, purpose: Purpose) -> Tensor:
        return uniform(self.settings.seed, batch.number, step, purpose, self._shape)

    def _trace(self, batch: InFlight, ratio: Tensor, done: SamplingStep) -> None:
        """Keep what the step before this one left: its drawing, and what of it this step started from."""
        for row, number in enumerate(batch.number.tolist()):
            if number in self._traces and batch.step[row] > 0:
                parts = (part[row].cpu().clone() for part in (batch.drawing, done.selection, done.state))
                self._traces[number].append(TraceStep(float(ratio[row]), *parts))

    def _finish(self, batch: InFlight, requests: list[Request]) -> Iterator[FinishedSample]:
        numbers = zip(batch.steps.tolist(), batch.nfe.tolist(), batch.entropy.tolist(), strict=True)
        drawings = batch.drawing.cpu().clone()
        for request, drawing, (steps, nfe, entropy_) in zip(requests, drawings, numbers, strict=True):
            trace = self._traces.pop(request.number, None)
            if trace is not None:
                trace.append(TraceStep(1.0, drawing, torch.ones_like(drawing, dtype=torch.bool), drawing))
            yield FinishedSample(request, drawing, int(steps), int(nfe), entropy_, trace or [])


def measure_entropies(
    network: Generator,
    grid: Grid,
    settings: SamplingSettings,
    requests: Iterable[Request],
    stop_when: Callable[[], bool] = lambda: False,
    *,
    condition_tokens: int = 0,
) -> Tensor:
    """Entropies (Eq. 8) of samples at the step that decides, float32 ``[n]``; they are given up after it.

    ``stop_when`` is asked between steps; True leaves out those in flight.
    """
    schedule = settings.schedule
    assert isinstance(schedule, Complexity)
    last = schedule.decision_step + 1
    short = replace(settings, schedule=replace(schedule, min_steps=last, max_steps=last))
    sampler = Sampler(network, grid, short, condition_tokens=condition_tokens)
    return torch.tensor([sample.entropy for sample in sampler.run(requests, stop_when)])
