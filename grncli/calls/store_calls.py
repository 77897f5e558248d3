"""``grncli.drop_samples`` and the other calls of ``grn store``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from grncli.calls.option_forms import Place, Progress, Several, following, joined, takes_options
from grncli.editing import compacting, dropping, duplicates, merging, near_duplicates, splitting
from grncli.editing.compacting import CompactSummary
from grncli.editing.dropping import DropSummary
from grncli.editing.duplicates import By, DedupeSummary
from grncli.editing.merging import MergeSummary
from grncli.editing.near_duplicates import NearSummary
from grncli.editing.row_names import read_names
from grncli.editing.splitting import SplitSummary
from grncli.runtime.errors import UsageError

Names = Place | Iterable[str]
"""A file of names, one a line (``"-"``: standard input), or the names."""


@takes_options()
def drop_samples(store: Place, *, keys: Names) -> DropSummary:
    """Let readers of a store skip samples, as ``grn store drop`` does; nothing is rewritten.

    Parameters
    ----------
    store : bit store or features store
    keys : keys or sources of samples, or prompts: a file of them, or the names themselves

    Raises
    ------
    GrnError
        `UsageError` for a name that no sample has, or where none would remain; `StoreError`. Nothing is changed then.
    """
    return dropping.drop_named(Path(store), _named(keys))


@takes_options()
def compact_store(
    store: Place, out: Place | None = None, *, progress: Progress = None, max_time: str | float | None = None
) -> CompactSummary:
    """Write a store without its dropped samples, as ``grn store compact`` does.

    Parameters
    ----------
    store : bit store or features store
    out : store to make; None: in the place of ``store``, which nothing may read meanwhile
    progress : called with (samples copied, samples in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved

    Raises
    ------
    Stopped
        At ``max_time``; the same call resumes.
    GrnError
        `UsageError` or `StoreError`, with nothing lost.
    """
    to = None if out is None else Path(out)
    return compacting.compact(Path(store), to, monitor=following(progress, max_time))


@takes_options()
def split_store(
    store: Place,
    out: Sequence[Place],
    *,
    share: Several | None = None,
    keys: Names | None = None,
    seed: int = 0,
    progress: Progress = None,
    max_time: str | float | None = None,
) -> SplitSummary:
    """Divide a store by shares that are drawn, or by a list, as ``grn store split`` does.

    Parameters
    ----------
    store : bit store or features store
    out : stores to make
    share : share of the samples for each of them, ``(0.9, 0.1)``
    keys : or names of the samples of the first one; a second one takes the others
    seed : with the names of sources it decides which share they fall to
    progress : called with (samples copied, samples in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved

    Raises
    ------
    Stopped
        At ``max_time``; the same call resumes.
    GrnError
        `UsageError` or `StoreError`, with nothing lost.
    """
    outs, monitor = [Path(each) for each in out], following(progress, max_time)
    if (share is None) == (keys is None):
        raise UsageError("split takes either --share A,B,... or --keys FILE; give one of them")
    if keys is not None and seed:
        raise UsageError(f"--seed {seed} is for --share, a list draws nothing; leave it out")
    if keys is not None:
        return splitting.split_by_names(Path(store), outs, _named(keys), monitor=monitor)
    return splitting.split_by_share(Path(store), outs, _shares(share), seed, monitor=monitor)


@takes_options()
def merge_stores(
    stores: Sequence[Place],
    out: Place,
    *,
    prefix_keys: bool = False,
    progress: Progress = None,
    max_time: str | float | None = None,
) -> MergeSummary:
    """Put stores of one tokenizer and the same settings together, as ``grn store merge`` does.

    Parameters
    ----------
    stores : bit stores, or features stores
    out : store to make
    prefix_keys : let each key begin with the name of its store
    progress : called with (samples copied, samples in all, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Stopped`, everything saved

    Raises
    ------
    Stopped
        At ``max_time``; the same call resumes.
    GrnError
        `UsageError`, `StoreMismatch` or `StoreError`, with nothing lost.
    """
    monitor = following(progress, max_time)
    return merging.merge([Path(store) for store in stores], Path(out), prefix_keys=prefix_keys, monitor=monitor)


@takes_options()
def dedupe_store(
    store: Place,
    *,
    by: By = "bits",
    drop: bool = False,
    near: float | None = None,
    rounds: int | None = None,
    progress: Progress = None,
    max_time: str | float | None = None,
) -> DedupeSummary | NearSummary:
    """Find samples that are the same, or nearly, as ``grn store dedupe`` does.

    Parameters
    ----------
    store : bit store
    by : ``"bits"``, or ``"source"`` for the bytes of the sources' files
    drop : let readers skip all but the first of each group
    near : instead, percent of the coarse bits that may differ between the samples of a pair
    rounds : whose bits ``near`` compares; None: the first
    progress : called with (samples, sources or pairs compared, all of them, a note), or a `Monitor`
    max_time : seconds or ``"3h50m"``, after which the work ends with `Unfinished`

    Returns
    -------
    DedupeSummary or NearSummary
        Groups of samples that are the same; or pairs, the nearest first.

    Raises
    ------
    Unfinished
        At ``max_time``; nothing was dropped.
    GrnError
        `UsageError` or `StoreError`.
    """
    if by not in get_args(By):
        raise UsageError(f"--by {by}: expected bits or source")
    if near is not None:
        if drop or by != "bits":
            raise UsageError("--near only reports pairs, by their bits; leave out --drop and --by source")
        return near_duplicates.near_duplicates(Path(store), near, rounds or 1, monitor=following(progress, max_time))
    if rounds is not None:
        raise UsageError(f"--rounds {rounds} is for --near; leave it out, or add --near 10")
    return duplicates.dedupe(Path(store), by, drop=drop, monitor=following(progress, max_time))


def _named(keys: Names) -> list[str]:
    return read_names(str(keys)) if isinstance(keys, str | Path) else list(keys)


def _shares(share: Several | None) -> list[float]:
    """``A,B,...`` as numbers; UsageError for anything else."""
    text = joined(share or "", ",")
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise UsageError(f"--share {text}: expected shares that sum to 1, such as 0.9,0.1") from None
