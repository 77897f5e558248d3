"""One trial of a search: samples at a point of the grid, against a reference, their prompts, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grncli.evaluation.feature_collection import Collector, NetworkOptions
from grncli.evaluation.generation import observe_samples
from grncli.evaluation.grids import SEARCHED, Point, Value, name_of
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_sources import StorePictures, open_once
from grncli.evaluation.recorded_prompts import paired_prompts
from grncli.evaluation.reference_statistics import check_together, load_distribution, unsaid
from grncli.evaluation.sampling_costs import mean_nfe
from grncli.evaluation.search_folder import Figure, SearchFolder, Trial
from grncli.evaluation.searched_prompts import SearchedPrompts
from grncli.evaluation.text_image_scores import TextImageOptions, TextImageScorer, protocol
from grncli.metrics.frechet import few_samples, frechet_distance
from grncli.metrics.statistics_files import Distribution
from grncli.models.transformer import Grid
from grncli.runs.recipe_first import OpenedGenerator, load_weights
from grncli.runtime.devices import DTYPES
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped, Unfinished
from grncli.sampling.plan import settled_options
from grncli.sampling.settings import SampleOptions, parse_classes
from grncli.sampling.stage import sample

_SINCE_TEXTS = ("cosine_end", "shift", "target_steps", "size", "frames", "budget", "ratio")  # absent in older folders


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The options of ``grn eval search``."""

    grid: Mapping[str, Sequence[Value]]
    sampling: SampleOptions  # what the grid does not vary; per_class of the last round
    networks: NetworkOptions = field(default_factory=NetworkOptions)
    text_image: TextImageOptions | None = None
    by: Figure | None = None  # what decides; None takes the distance where there is a reference
    reading: PictureReading  # of the reference, and the tokenizer
    halvings: int = 2
    overwrite: bool = False


class Judge:
    """Samples at a point of the grid and measures the samples.

    Networks, features of prompts and the statistics of the reference are opened or computed once: that is quick, and a
    training that is under way cannot change what is searched from point to point.

    Parameters
    ----------
    opened : the run of the generator
    grid : of the samples, in tokens
    """

    def __init__(
        self,
        opened: OpenedGenerator,
        reference: str | None,
        out: Path,
        settings: SearchSettings,
        grid: Grid,
        monitor: Monitor,
    ) -> None:
        if settings.reading.tokenizer is None:
            raise UsageError("a search needs --tokenizer RUN, the tokenizer that the generator was trained for")
        self._run, self._settings, say = opened.run, settings, monitor.say
        options = settled_options(settings.sampling, opened.recipe, grid, opened.run)
        device = settings.reading.device
        # Without progress: a search counts trials.
        self._monitor = Monitor(stop=monitor.stop)
        self._tokenizer = open_once(settings.reading.tokenizer, device, say)
        self._reading = replace(settings.reading, tokenizer=self._tokenizer)
        self._prompts = SearchedPrompts.of(opened, options, grid, say)
        self._text_image = None if settings.text_image is None else settings.text_image.open(device)
        self._network = None if reference is None else settings.networks.open("inception", self._reading, say)
        self._reference = None
        if reference is not None:
            told = replace(self._monitor, say=say)
            self._reference = load_distribution(reference, self._network, self._reading, frozenset(), monitor=told)
            self._check_fit(self._reference, grid, opened.recipe.bits.stride)
        dtype = DTYPES[options.dtype]
        self._generator = load_weights(opened, options.weights, device=torch.device("cpu"), dtype=dtype, say=say)
        self._subjects = max(1, len(parse_classes(options.classes, opened.recipe.bits.labels)))
        if self._prompts is not None:
            self._subjects = len(self._prompts)
        self.about = {
            "generator": self._generator.identity,
            "tokenizer": self._tokenizer.identity,
            **({} if self._reference is None else {"reference": self._reference.about}),
            **({} if self._network is None else {"network": self._network.about()}),
            **({} if self._text_image is None else {"text_image": protocol(self._text_image)}),
            "sampling": _fixed(options, settings.grid) | ({} if self._prompts is None else self._prompts.described()),
        }
        recognized = {} if self._reference is None else {"reference": _recognized(self._reference)}
        self._folder = SearchFolder(out, {**self.about, **recognized}, overwrite=settings.overwrite)

    def close(self) -> None:
        """Let others fill the folder; harmless when repeated."""
        self._folder.close()

    @property
    def distance(self) -> str | None:
        """What the distance from the reference is called: fid, fvd or fd."""
        return None if self._network is None else self._network.frechet

    def _check_fit(self, reference: Distribution, grid: Grid, stride: Sequence[int]) -> None:
        """Refuse a reference of another network or size than the samples will be of."""
        assert self._network is not None
        about = {
            "src": "what is sampled",
            "picture": [grid[1] * stride[1], grid[2] * stride[2]],
            "network": self._network.about(),
        }
        check_together(replace(reference, count=None, about=about), reference, self._settings.reading.size)

    def warnings(self, samples: int) -> list[str]:
        """About the reference, and too few samples for a covariance."""
        if self._reference is None or self._network is None:
            return []
        dimensions = len(self._reference.mean)
        return [*unsaid(self._reference), *few_samples("a point", samples, dimensions, self._network.frechet)]

    def trial(self, point: Point, per_class: int) -> Trial:
        """A point with some samples of each class or prompt, from an earlier run where it has been measured."""
        finished = self._folder.trials.get((name_of(point), per_class))
        if finished is None:
            finished = self._measure(point, per_class)
            self._folder.add(finished)
        return finished

    def _measure(self, point: Point, per_class: int) -> Trial:
        store = self._folder.store_of(point)
        options = replace(at_point(self._settings.sampling, point), per_class=per_class)
        sample(
            self._run,
            store,
            options,
            self._monitor,
            generator=self._generator,
            tokenizer=self._tokenizer,
            features=None if self._prompts is None else self._prompts.features,
        )
        # The store may hold more than these, of an earlier search for more.
        reading = replace(self._reading, size=None, limit=per_class * self._subjects)
        pictures = StorePictures(store, reading)
        collector = None if self._network is None else Collector(self._network)
        scorer = None
        if self._text_image is not None:
            scorer = TextImageScorer(self._text_image, paired_prompts(pictures, None))
        try:
            _, ours = observe_samples(pictures, collector, scorer, reading, monitor=self._monitor)
        except Unfinished as unfinished:
            raise Stopped(str(unfinished)) from None
        return Trial(
            point=dict(point),
            per_class=per_class,
            samples=len(pictures) if ours is None else ours.count or 0,
            distance=None if ours is None else self._distance_of(ours),
            text_image=None if scorer is None else scorer.score().mean,
            nfe=mean_nfe(pictures.store, pictures.places),
        )

    def _distance_of(self, ours: Distribution) -> float:
        theirs = self._reference
        assert theirs is not None
        check_together(ours, theirs, self._settings.reading.size)
        return frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance)


def at_point(options: SampleOptions, point: Point) -> SampleOptions:
    """The options with the values of a point of the grid."""
    return replace(options, **point)  # type: ignore[arg-type]  # parse_grid read each by its type


def _fixed(options: SampleOptions, grid: Mapping[str, Sequence[Value]]) -> dict[str, Any]:
    """The settings that all points share: trials stay valid when a grid grows."""
    names = ["classes", "grid", "weights", "seed", "dtype", *SEARCHED, "size", "frames", "budget", "ratio"]
    values = {name: getattr(options, name) for name in names if name not in grid}
    given = {name: value for name, value in values.items() if name not in _SINCE_TEXTS or value is not None}
    return {"varied": sorted(grid)} | given


def _recognized(statistics: Distribution) -> list[float]:
    """Numbers that identify a reference, wherever it is stored; equal up to rounding when it is read again."""
    return [
        float(np.square(statistics.mean).sum()),
        float(np.trace(statistics.covariance)),
        float(statistics.covariance.sum()),
    ]
