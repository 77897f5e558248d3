"""Originals beside their reconstructions: some, and those that are furthest apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from grncli.evaluation.exhibits import Exhibit, Shown, as_png, from_png, short_name, thumbnail
from grncli.media.selection import evenly_spread
from grncli.media.writing import Frames, contact_sheet
from grncli.metrics.quality import NAMES
from grncli.runtime.processes import Processes

CELL = 128  # pixels of a picture on the sheet


@dataclass(frozen=True)
class Candidate:
    """A sample that may be shown.

    Attributes
    ----------
    place : in the order of the source
    value : mean over its frames of what samples are ranked by; NaN where that is not defined
    frames : how many it has; of a clip the middle one is shown
    pictures : uint8 ``[H, W, 3]``: the original, then each version of it
    """

    place: int
    name: str
    value: float
    frames: int
    pictures: Sequence[Frames]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, the pictures as PNG."""
        return {**vars(self), "pictures": [as_png(picture) for picture in self.pictures]}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Candidate":
        """What `to_json` gave."""
        return cls(**document | {"pictures": [from_png(text) for text in document["pictures"]]})


class PairGallery:
    """Keeps the pictures of samples that are to be shown.

    Parameters
    ----------
    samples : how many sources there are
    spread, worst : how many are shown, evenly spread over the sources, and of those furthest from their originals
    largest_first : whether a large value means far
    """

    def __init__(self, samples: int, *, spread: int, worst: int, largest_first: bool) -> None:
        self._places = set(evenly_spread(spread, samples))
        self._most, self._sign = worst, -1 if largest_first else 1
        self._spread: dict[int, Candidate] = {}
        self._worst: list[Candidate] = []

    def add(self, candidate: Candidate) -> None:
        """Keep a sample where it is to be shown: of a clip that is cut into windows, its first window."""
        small = replace(candidate, pictures=[thumbnail(picture) for picture in candidate.pictures])
        if candidate.place in self._places or not self._spread:
            self._spread.setdefault(candidate.place, small)
        if self._most and candidate.value == candidate.value:
            self._worst = self._furthest([*self._worst, small])

    def merge(self, processes: Processes) -> None:
        """Keep what all processes have kept."""
        if processes.count == 1:
            return
        own = [[each.to_json() for each in kept] for kept in (self._spread.values(), self._worst)]
        parts = processes.gather_json(own)
        spread, worst = ([Candidate.from_json(each) for part in parts for each in part[kind]] for kind in (0, 1))
        chosen = [each for each in spread if each.place in self._places] or spread[:1]
        self._spread = {each.place: each for each in chosen}
        self._worst = self._furthest(worst)

    def sheet(self, labels: Sequence[str], metric: str | None) -> Frames:
        """uint8 ``[H, W, 3]``: a row for each sample, the original first (paper Fig. 3)."""
        rows = [each.pictures for each in self._in_order()]
        captions = ["source", *labels] * len(rows)
        for each in self._worst:
            rows.append(each.pictures)
            captions += ["among the worst", *[""] * (len(labels) - 1), f"{metric} {each.value:.4g}"]
        return contact_sheet(rows, captions, cell=CELL)

    def exhibits(self, labels: Sequence[str], metric: str | None, src: str) -> list[Exhibit]:
        """The same pictures with their names, those furthest from their originals first."""
        name = NAMES.get(metric or "", "").removesuffix(" (dB)")
        kinds = [
            ("Furthest from their sources", f"Worst first by the {name} of {labels[-1]}.", self._worst),
            ("Some of the samples", "Evenly spread over the sources.", self._in_order()),
        ]
        return [
            Exhibit(
                title=title,
                note=f"{note} Of a clip, its middle frame." if any(each.frames > 1 for each in kept) else note,
                samples=[
                    Shown(each.pictures, short_name(each.name, src), _detail(metric, name, each.value)) for each in kept
                ],
                labels=["source", *labels],
            )
            for title, note, kept in kinds
            if kept
        ]

    def _furthest(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        # Sorting is stable: windows of a source stay in their order.
        return sorted(candidates, key=lambda each: (self._sign * each.value, each.place))[: self._most]

    def _in_order(self) -> list[Candidate]:
        return [self._spread[place] for place in sorted(self._spread)]


def _detail(metric: str | None, name: str, value: float) -> str:
    if value != value:
        return ""
    return f"{name} {value:.2f} dB" if metric == "psnr" else f"{name} {value:.4f}"
