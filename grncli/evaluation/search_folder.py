"""The folder of a search: what it searches, its finished trials, and the samples of each point."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, Strict

from grncli.evaluation.grids import Point, Value, name_of
from grncli.runtime.checking import Count, Text, check
from grncli.runtime.errors import UsageError
from grncli.runtime.folders import ClaimedFolder, FolderMarker, make_folder, remove, remove_now
from grncli.runtime.jsonlines import append_line, read_lines

MANIFEST, RESULTS, POINTS = "search.json", "results.jsonl", "points"
Figure = Literal["distance", "text-image"]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A point after one round."""

    point: dict[str, Value]
    per_class: int
    samples: int
    distance: float | None = None  # from the reference, where there is one
    text_image: float | None = None  # mean score of samples and their prompts, where there is a network for it
    nfe: float  # number of function evaluations per sample

    def figure(self, by: Figure) -> float:
        """The distance or the score; NaN where it was not measured."""
        value = self.distance if by == "distance" else self.text_image
        return math.nan if value is None else value

    def loss(self, by: Figure) -> float:
        """What the best trial has least of."""
        return self.figure(by) if by == "distance" else -self.figure(by)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; null for what is not defined, nothing for what was not measured."""
        measured = {name: value for name, value in vars(self).items() if value is not None}
        return measured | {"nfe": self.nfe if math.isfinite(self.nfe) else None}


@dataclass(frozen=True)
class _StoredTrial:
    """A line of ``results.jsonl``, which called the NFE ``evaluations`` in earlier versions."""

    point: dict[str, Annotated[bool, Strict()] | Annotated[int, Strict()] | Finite | Text]
    per_class: Count
    samples: Count
    distance: Finite | None = None
    text_image: Finite | None = None
    nfe: Finite | None = None


class SearchFolder:
    """Where a search keeps its samples and trials; one process at a time fills it, until it is closed.

    Parameters
    ----------
    about : what all points share, as JSON data; ``reference``, if any, are numbers that recognize it, up to rounding
    overwrite : replace another search, but no folder of something else

    Raises
    ------
    UsageError
        If the folder holds something else, or a damaged trial.
    LockError
        If another process fills it.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._folder = folder
        marker = FolderMarker(
            folder=folder,
            file=folder / MANIFEST,
            command="grn eval search",
            purpose="a folder for the samples of the search",
            remedy="choose another --out",
        )
        asked = json.loads(json.dumps(about))
        _require_fit(marker, asked, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        self._claimed = ClaimedFolder(folder)
        try:
            # Once more: another process may have filled it before it was claimed.
            stored = _require_fit(marker, asked, overwrite=overwrite)
            remove_now(folder / f".{POINTS}.old")  # what an interrupted overwrite left
            if stored != asked:
                remove(folder / RESULTS)
                remove(folder / POINTS)
                marker.write(asked)
            self.trials = {(name_of(trial.point), trial.per_class): trial for trial in _read_trials(folder / RESULTS)}
            """Finished ones, by the name of their point and the samples of each class."""
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others fill it; harmless when repeated."""
        self._claimed.close()

    def store_of(self, point: Point) -> Path:
        """Where the samples of a point are kept."""
        make_folder(self._folder / POINTS)
        return self._folder / POINTS / f"{name_of(point)}.zarr"

    def add(self, trial: Trial) -> None:
        """Keep a finished trial."""
        append_line(self._folder / RESULTS, trial.to_json())
        self.trials[name_of(trial.point), trial.per_class] = trial


def _require_fit(marker: FolderMarker, asked: dict[str, Any], *, overwrite: bool) -> dict[str, Any] | None:
    """As the marker does; what was ``asked`` for gets the numbers of a reference that is the same up to rounding."""
    stored = marker.read()
    if stored is not None and _same_reference(stored.get("reference"), asked.get("reference")):
        asked["reference"] = stored["reference"]
    return marker.require(asked, overwrite=overwrite)


def _same_reference(stored: Any, asked: list[float] | None) -> bool:
    plain = (
        asked is not None
        and isinstance(stored, list)
        and len(stored) == len(asked)
        and all(type(n) in (int, float) for n in stored)
    )
    return plain and asked is not None and np.allclose(stored, asked, rtol=1e-5)


def _read_trials(path: Path) -> list[Trial]:
    if not path.exists():
        return []
    remedy, trials = "remove it, the samples of each point are kept", []
    for place, line in read_lines(path, error=UsageError, remedy=remedy):
        if "evaluations" in line:
            line["nfe"] = line.pop("evaluations")
        if isinstance(line.get("nfe"), float) and math.isnan(line["nfe"]):
            line["nfe"] = None  # as earlier versions have it
        trial = check(line, _StoredTrial, place, error=UsageError, remedy=remedy)
        if trial.distance is None and trial.text_image is None:
            raise UsageError(f"{place}: has no distance and no text_image; {remedy}")
        trials.append(Trial(**vars(trial) | {"nfe": math.nan if trial.nfe is None else trial.nfe}))
    return trials
