"""Which samples a report of ``grn eval gen`` shows: some of all, those that each measurement finds worst, and those of
the fewest and the most steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grncli.evaluation.exhibits import Exhibit, Shown, short_name, thumbnail
from grncli.evaluation.feature_collection import Mistake
from grncli.evaluation.measuring import Measured, OneSize, Pictures, measured_by_all
from grncli.media.selection import evenly_spread
from grncli.media.writing import Frames
from grncli.metrics.distributions import nearest_distances
from grncli.metrics.feature_files import FeatureFile
from grncli.metrics.statistics_files import Distribution
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS

SPREAD, WORST = 24, 8


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Samples by one measurement, worst first.

    Attributes
    ----------
    details : by the place of a sample among the selected ones, what is said of it
    """

    title: str
    note: str
    details: Mapping[int, str]


def furthest_from_real(ours: Distribution, theirs: Distribution, *, device: str = "cpu") -> list[Ranking]:
    """Those furthest from the nearest real picture in the features of the network; none without single features."""
    if ours.features is None or theirs.features is None or not len(ours.features) or not len(theirs.features):
        return []
    apart = _by_place(ours.features, nearest_distances(ours.features, theirs.features, device=device))
    places = sorted(apart, key=lambda place: (-apart[place], place))[:WORST]
    return [
        Ranking(
            title="Furthest from real pictures",
            note="By the Euclidean distance to the nearest real picture in the features of the network.",
            details={place: f"distance {apart[place]:.4g}" for place in places},
        )
    ]


def _by_place(features: FeatureFile, distances: NDArray[np.float32]) -> dict[int, float]:
    """The mean over the frames of each sample."""
    places = np.sort(np.array(features.places()))
    unique, first, counts = np.unique(places, return_index=True, return_counts=True)
    return dict(zip(unique.tolist(), (np.add.reduceat(distances, first) / counts).tolist(), strict=True))


def least_like_prompts(scores: NDArray[np.float64], prompt: Callable[[int], str]) -> Ranking:
    """Those with the smallest text-image scores, rows (place, score) of ``scores`` [n, 2]."""
    worst = scores[np.lexsort((scores[:, 0], scores[:, 1]))][:WORST]
    return Ranking(
        title="Least like their prompts",
        note="By the text-image score.",
        details={int(place): f"{score:.2f}: {prompt(int(place))}" for place, score in worst.tolist()},
    )


def taken_for_others(mistakes: Sequence[Mistake]) -> Ranking:
    """Those that a classifier is most certain are of another class than their own."""
    worst = sorted(mistakes, key=lambda each: (-each[3], each[0]))[:WORST]
    return Ranking(
        title="Taken for another class",
        note=f"The most certain of {len(mistakes)} samples that the network assigns to another class than their own.",
        details={place: f"{label}, taken for {other} ({odds:.0%})" for place, label, other, odds in worst},
    )


def by_steps(taken: Mapping[int, tuple[int, float]]) -> list[Ranking]:
    """Those of the fewest and of the most steps, by (steps, entropy) of each place; none where all took as many."""
    if len({steps for steps, _ in taken.values()}) < 2:
        return []
    ascending = sorted(taken, key=lambda place: (*taken[place], place))
    note = "By the complexity-aware schedule (paper Eq. 9): the higher its entropy, the more steps a sample takes."
    return [
        Ranking(
            title=f"The {kind} refinement steps",
            note=note,
            details={place: f"{taken[place][0]} steps, entropy {taken[place][1]:.3f}" for place in places},
        )
        for kind, places in (("fewest", ascending[:WORST]), ("most", ascending[: -WORST - 1 : -1]))
    ]


def show_samples(pictures: Pictures, rankings: Sequence[Ranking], monitor: Monitor) -> list[Exhibit]:
    """Read what is to be shown once more; the worst first. Unfinished if ``monitor`` asked for it."""
    spread, prompts = evenly_spread(SPREAD, len(pictures)), pictures.prompts()
    some = Ranking(
        title="Some of the samples",
        note=f"{len(spread)} of {len(pictures)}, evenly spread.",
        details={place: prompts[place] or "" for place in spread},
    )
    wanted = sorted({place for ranking in [*rankings, some] for place in ranking.details})
    shown: dict[int, Measured[Frames]] = {}
    quiet = Monitor(monitor.stop)  # the pass before has said what cannot be read
    measured = pictures.only(wanted).measure(_middle_frames, monitor=quiet)
    for each in measured_by_all(measured, len(wanted), OneSize(wanted=False), SINGLE_PROCESS, quiet):
        shown.setdefault(wanted[each.place], each)  # of a clip that is cut into windows, the first
    exhibits = []
    for ranking in [*rankings, some]:
        found = [(shown[place], detail) for place, detail in ranking.details.items() if place in shown]
        has_clips = any(each.shape[0] > 1 for each, _ in found)
        samples = [Shown([each.result], short_name(each.name, pictures.src), detail) for each, detail in found]
        note = f"{ranking.note} Of a clip, its middle frame." if has_clips else ranking.note
        exhibits += [Exhibit(title=ranking.title, note=note, samples=samples)] if samples else []
    return exhibits


def _middle_frames(frames: Tensor) -> list[Frames]:
    """Of each sample of uint8 ``[B, T, H, W, 3]``."""
    return [thumbnail(picture) for picture in frames[:, frames.shape[1] // 2].cpu().numpy()]
