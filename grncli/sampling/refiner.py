"""The sampling loop (paper Algorithm 3), for many samples at once that are each at a step of their own.

A sample that has taken its steps leaves, and the next one takes its place: a schedule that gives certain samples fewer
steps then saves their time. What a sample becomes depends on its number alone, not on those it shares a batch with.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from grncli.models.generator import STEADY_ROWS, Generator
from grncli.models.transformer import Grid
from grncli.refinement import (
    Complexity,
    Schedule,
    draw,
    entropy,
    guidance_scale,
    guide,
    mix,
    select,
    select_confident,
    unflipped,
)
from grncli.rng import Purpose, categories, uniform

CPU_TOKENS, GPU_TOKENS = 2048, 8192  # that pass through the network at once
Selection = Literal["random", "confidence", "mask"]


@dataclass(frozen=True, kw_only=True)
class Rules:
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
class Job:
    """A sample to make: its number, its class, and what of it is given.

    Parameters
    ----------
    given : uint8 categories ``[elements, T, h, w]``, of which those where ``held`` is true stay
    """

    number: int
    label: int
    given: Tensor | None = None
    held: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """What one step left of a watched sample; all ``[elements, T, h, w]`` on the CPU."""

    ratio: float
    drawing: Tensor  # the newest prediction, and with ``mask`` the picks before it
    selection: Tensor
    state: Tensor


@dataclass(frozen=True)
class Refined:
    """A finished sample."""

    job: Job
    drawing: Tensor  # uint8 [elements, T, h, w], on the CPU
    steps: int
    evaluations: int  # passes of the network, the unconditional ones among them
    entropy: float  # Eq. 8 at the step that decides
    moments: list[Moment] = field(default_factory=list)


@dataclass
class _Flight:
    """The samples under way, one row each."""

    number: Tensor  # int64 [B]
    label: Tensor  # int64 [B]
    step: Tensor  # float32 [B], steps done
    steps: Tensor  # float32 [B], in all; the most there can be until the sample's entropy has decided
    entropy: Tensor  # float32 [B]
    evaluations: Tensor  # int64 [B]
    random: Tensor  # uint8 [B, elements, T, h, w]
    drawing: Tensor  # of the same shape
    selection: Tensor  # bool, of the same shape
    held: Tensor  # bool, of the same shape

    def __len__(self) -> int:
        return len(self.number)

    def rows(self, chosen: Tensor) -> "_Flight":
        """Some of the samples."""
        return _Flight(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def joined(self, other: "_Flight") -> "_Flight":
        """These samples, and others behind them."""
        return _Flight(**{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)})


class Refiner:
    """Refines samples of one latent grid.

    Parameters
    ----------
    network : in evaluation mode, on the device to compute on, in the number format to compute in
    batch : samples under way at once; None takes what fills the device
    watched : numbers of samples whose steps are kept
    """

    def __init__(
        self,
        network: Generator,
        grid: Grid,
        rules: Rules,
        *,
        batch: int | None = None,
        watched: Collection[int] = (),
    ) -> None:
        self.network = network
        self.config = network.config
        self.rules = rules
        self.schedule = rules.schedule
        self.shape = (self.config.codec.token_channels, *grid)
        self.device = network.classes.device
        self.watched = frozenset(watched)
        tokens = torch.Size(grid).numel()
        self._on_cpu = self.device.type == "cpu"
        self._call_rows = max(1, (CPU_TOKENS if self._on_cpu else GPU_TOKENS) // tokens)
        # Rows of a call come in multiples of this, and the last ones are filled up: see STEADY_ROWS.
        self._row_unit = -(-STEADY_ROWS // tokens) if self._on_cpu else self._call_rows
        self.batch = batch or self._call_rows
        decision = self.schedule.decision_step
        # A fixed schedule decides nothing; its samples' entropies are those at the paper's step, to compare.
        self._decision = min(Complexity.warmup_steps, self.schedule.most_steps - 1) if decision is None else decision
        self._moments: dict[int, list[Moment]] = {}

    @torch.inference_mode()
    def run(self, jobs: Iterable[Job], stop_when: Callable[[], bool] = lambda: False) -> Iterator[Refined]:
        """Refine one sample after the other, up to ``batch`` at once; those of fewer steps come earlier.

        ``stop_when`` is asked between steps; True gives up the samples under way.
        """
        waiting = iter(jobs)
        under_way: list[Job] = []
        flight: _Flight | None = None
        while True:
            arriving = list(islice(waiting, self.batch - len(under_way)))
            if arriving:
                begun = self._begin(arriving)
                flight = begun if flight is None else flight.joined(begun)
                under_way += arriving
            if flight is None or not under_way or stop_when():
                return
            self._advance(flight)
            over = flight.step >= flight.steps
            if bool(over.any()):
                yield from self._finished(flight.rows(over), [under_way[i] for i in over.nonzero().flatten().tolist()])
                left = ~over
                under_way = [under_way[i] for i in left.nonzero().flatten().tolist()]
                flight = flight.rows(left)

    def _begin(self, jobs: list[Job]) -> _Flight:
        count, device = len(jobs), self.device
        number = torch.tensor([job.number for job in jobs], device=device)
        random = categories(self.rules.seed, number, self.config.codec.categories, self.shape)
        drawing, held = random.clone(), torch.zeros_like(random, dtype=torch.bool)
        for row, job in enumerate(jobs):
            if job.given is not None and job.held is not None:
                held[row] = job.held.to(device)
                drawing[row] = torch.where(held[row], job.given.to(device), random[row])
        return _Flight(
            number=number,
            label=torch.tensor([job.label for job in jobs], device=device),
            step=torch.zeros(count, device=device),
            steps=torch.full((count,), float(self.schedule.most_steps), device=device),
            entropy=torch.zeros(count, device=device),
            evaluations=torch.zeros(count, dtype=torch.int64, device=device),
            random=random,
            drawing=drawing,
            selection=held.clone(),
            held=held,
        )

    def _advance(self, flight: _Flight) -> None:
        """One step of every sample under way: predict, draw, select."""
        rules = self.rules
        state = mix(flight.drawing, flight.random, flight.selection)
        ratio = self._realised(flight, self.schedule.ratio(flight.step, flight.steps))
        conditional, logits = self._predict(flight, state, ratio)
        deciding = flight.step == self._decision
        if bool(deciding.any()):
            found = entropy(conditional[deciding])
            flight.entropy[deciding] = found
            flight.steps[deciding] = self.schedule.steps(found)
        if rules.relative:
            logits = unflipped(logits, state)
        logits = logits / self._temperature(flight).view(-1, *[1] * (logits.dim() - 1))
        step = flight.step.long()
        drawn, confidence = draw(logits, uniform(rules.seed, flight.number, step, Purpose.PREDICTION, self.shape))
        flight.step += 1
        ratio = self.schedule.ratio(flight.step, flight.steps)
        fixed = flight.selection if rules.selection == "mask" else flight.held
        flight.drawing = torch.where(fixed, flight.drawing, drawn)
        if rules.selection == "confidence":
            selection = select_confident(confidence, ratio)
        else:
            # The same numbers at every step make a mask that only grows.
            moment = torch.zeros_like(step) if rules.selection == "mask" else step
            selection = select(uniform(rules.seed, flight.number, moment, Purpose.SELECTION, self.shape), ratio)
        flight.selection = selection | flight.held
        if self.watched:
            self._watch(flight, ratio)

    def _predict(self, flight: _Flight, state: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
        """Conditional logits, and those after guidance; the unconditional pass only for samples that need it."""
        rules = self.rules
        scale = torch.ones_like(ratio)
        if self.config.classes:
            scale = guidance_scale(ratio, rules.guidance, *rules.guidance_interval)
        guided = scale != 1
        flight.evaluations += 1 + guided.long()
        null = torch.full_like(flight.label[guided], self.config.null_class)
        both = self._evaluate(
            torch.cat([state, state[guided]]), torch.cat([ratio, ratio[guided]]), torch.cat([flight.label, null])
        )
        conditional, unconditional = both[: len(flight)], both[len(flight) :]
        if not len(unconditional):
            return conditional, conditional
        logits = conditional.clone()
        logits[guided] = guide(conditional[guided], unconditional, scale[guided])
        return conditional, logits

    def _evaluate(self, state: Tensor, ratio: Tensor, label: Tensor) -> Tensor:
        """Logits in float32, row by row the same whatever the other rows are."""
        rows = len(state)
        missing = -rows % self._row_unit
        parts = [torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) for part in (state, ratio, label)]
        # A multiple of the unit, so that only the last call can be short.
        size = max(self._row_unit, self._call_rows // self._row_unit * self._row_unit)
        calls = zip(*(torch.split(part, size) for part in parts), strict=True)
        return torch.cat([self.network(*call).float() for call in calls])[:rows]

    def _realised(self, flight: _Flight, ratio: Tensor) -> Tensor:
        """The share of true elements that the network is told of: what is held counts in full."""
        share = flight.held.flatten(1).float().mean(dim=1)
        return share + (1 - share) * ratio

    def _temperature(self, flight: _Flight) -> Tensor:
        temperature = torch.full_like(flight.step, self.rules.temperature)
        if not self.rules.adapt_temperature or self.schedule.decision_step is None:
            return temperature
        later = flight.steps - self.schedule.decision_step
        factor = ((later - 10) / 40 + 0.5).clamp(0.5, 1)
        return torch.where(flight.step >= self._decision, temperature * factor, temperature)

    def _watch(self, flight: _Flight, ratio: Tensor) -> None:
        state = mix(flight.drawing, flight.random, flight.selection)
        for row, number in enumerate(flight.number.tolist()):
            if number in self.watched:
                parts = (part[row].cpu().clone() for part in (flight.drawing, flight.selection, state))
                self._moments.setdefault(number, []).append(Moment(float(ratio[row]), *parts))

    def _finished(self, flight: _Flight, jobs: list[Job]) -> Iterator[Refined]:
        numbers = zip(flight.steps.tolist(), flight.evaluations.tolist(), flight.entropy.tolist(), strict=True)
        drawings = flight.drawing.cpu().clone()
        for job, drawing, (steps, evaluations, found) in zip(jobs, drawings, numbers, strict=True):
            moments = self._moments.pop(job.number, [])
            yield Refined(job, drawing, int(steps), int(evaluations), found, moments)


def measure_entropies(
    network: Generator, grid: Grid, rules: Rules, jobs: Iterable[Job], stop_when: Callable[[], bool] = lambda: False
) -> Tensor:
    """Entropies (Eq. 8) of samples at the step that decides, float32 ``[n]``; they are given up after it.

    ``stop_when`` is asked between steps; True leaves out those under way.
    """
    schedule = rules.schedule
    assert isinstance(schedule, Complexity)
    last = schedule.decision_step + 1
    short = replace(schedule, min_steps=last, max_steps=last)
    refiner = Refiner(network, grid, replace(rules, schedule=short))
    return torch.tensor([refined.entropy for refined in refiner.run(jobs, stop_when)])
