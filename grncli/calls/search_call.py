"""``grncli.search_settings``: which decoding settings give the best samples."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

from grncli.calls.measuring_calls import NetworkChoice, TextImageChoice, network_options, text_image_options
from grncli.calls.option_forms import (
    Place,
    Progress,
    Several,
    following,
    joined,
    settled,
    takes_options,
    worker_count,
)
from grncli.calls.report_options import AskedReport
from grncli.calls.sampling_files import SearchedOptions, sample_options
from grncli.evaluation.grids import parse_grid
from grncli.evaluation.halving import Search, search
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.trial_judge import SearchSettings
from grncli.reporting.search_report import search_report
from grncli.sampling.settings import SampleOptions


class SearchOptions(NetworkChoice, TextImageChoice, SearchedOptions, total=False):
    """The options of ``grn eval search``, and those of sampling that the grid does not vary."""

    by: Literal["distance", "text-image"] | None  # what decides, where both are measured; None: the distance
    halvings: int  # rounds before the last, with half the samples each
    size: Several | None  # of the reference: 256, "HxW" or (H, W); None: as it is
    workers: int | None  # decoding processes of the reference; None: half the cores, at most 8
    plot: Place | None  # PNG, SVG or PDF file for a plot
    html: Place | None  # write the whole report as one page


@takes_options(SampleOptions, dtype="auto", halvings=2, download=False)
def search_settings(
    generator: Place,
    grid: Mapping[str, Any] | Sequence[str],
    *,
    tokenizer: Place,
    reference: Place | None = None,
    out: Place | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
    **options: Unpack[SearchOptions],
) -> Search:
    """Find the decoding settings with the best samples by successive halving, as ``grn eval search`` does.

    Parameters
    ----------
    generator : run directory
    grid : values of each setting, such as ``{"temperature": [1.0, 1.3], "guidance": "1.5:3:0.5"}`` (from, to, step), or
        as the command takes them: ``["temperature=1.0,1.3"]``
    tokenizer : run directory of the tokenizer that the generator was trained for
    reference : real pictures to compare with, or their statistics; not needed with ``text_image_network``
    out : folder of samples and results, which resumes an interrupted search; None: ``search`` in the run
    progress : called with (trials done, trials in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`
    options : those of the command; `SearchOptions` says what each is

    Returns
    -------
    Search
        ``best.point`` are the best settings, and ``trials`` all of them, best first.

    Raises
    ------
    Stopped
        At ``max_time``; samples and finished trials are kept, and the same call resumes.
    GrnError
        `UsageError`, `MediaError`, `StoreError` or `CheckpointError`, before any sampling.
    """
    arguments = {"tokenizer": tokenizer, "reference": reference, "out": out, **options}
    asked = AskedReport("search_settings", (generator, grid), arguments, drawn=True)
    values = settled(options)
    sampling = {name: values[name] for name in SearchedOptions.__annotations__ if name in values}
    settings = SearchSettings(
        grid=parse_grid(grid_texts(grid)),
        sampling=sample_options({name: value for name, value in sampling.items() if name != "overwrite"}),
        networks=network_options(values),
        text_image=text_image_options({name: value for name, value in values.items() if name != "prompts"}),
        by=values.get("by"),
        reading=PictureReading(
            size=values.get("size"),
            tokenizer=str(tokenizer),
            device=values["device"],
            workers=worker_count(values.get("workers")),
        ),
        halvings=values.get("halvings", 2),
        overwrite=values.get("overwrite", False),
    )
    result = search(
        Path(generator),
        None if reference is None else str(reference),
        Path(generator) / "search" if out is None else Path(out),
        settings,
        monitor=following(progress, max_time),
    )
    asked.write(lambda: search_report(result))
    return result


def grid_texts(grid: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """A grid as the command takes it: ``NAME=VALUES`` each."""
    if not isinstance(grid, Mapping):
        return list(grid)
    return [f"{name}={joined(_texts(values), ',')}" for name, values in grid.items()]


def _texts(values: Any) -> Any:
    """Each value as text: true and false as they are written, and an interval as LOW:HIGH."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return values
    return [str(value).lower() if isinstance(value, bool) else joined(value, ":") for value in values]
