"""``grn store dedupe``: samples that are the same, or nearly."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import guarded, monitored, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted

if TYPE_CHECKING:
    from grncli.editing.duplicates import DedupeSummary
    from grncli.editing.near_duplicates import NearSummary

SHOWN = 10  # groups or pairs


@examples(
    "grn store dedupe photos.zarr",
    "grn store dedupe photos.zarr --by source --drop",
    "# Pictures that were cropped by a little or compressed again",
    "grn store dedupe photos.zarr --near 10",
)
@guarded
def dedupe(
    store: Annotated[Path, Argument(metavar="STORE", help="Bit store.", show_default=False)],
    by: Annotated[
        Literal["bits", "source"], Option(help="What is compared: the bits, or the bytes of the sources' files.")
    ] = "bits",
    drop: Annotated[bool, Option("--drop", help="Drop all but the first of each group.")] = False,
    near: Annotated[
        float | None,
        Option(
            metavar="PERCENT",
            min=0,
            help="Instead, list pairs in which at most this share of the coarse bits differs: 0 to 25, such as 10.",
        ),
    ] = None,
    rounds: Annotated[
        int | None, Option(metavar="m", min=1, max=8, help="Rounds for --near; default: the first.")
    ] = None,
    max_time: options.MaxTime = None,
    json: options.Json = False,
) -> None:
    """Find samples that are the same, or nearly, and drop all but one of each group of the same.

    By --by source all samples of a source (windows, mirrored copies) go or stay. Groups whose samples have different
    labels are counted. --near only reports: a person decides, and grn store drop takes the list.
    """
    works_alone()
    with monitored("store dedupe", "samples", max_time) as monitor:
        from grncli.calls.store_calls import dedupe_store

        summary: Any = dedupe_store(store, by=by, drop=drop, near=near, rounds=rounds, progress=monitor)
    if json:
        print_json(summary.to_json())
    if near is None:
        _tell_same(summary, drop=drop, show=not json)
    else:
        _tell_near(summary, show=not json)


def _tell_same(summary: "DedupeSummary", *, drop: bool, show: bool) -> None:
    if show:
        _show(summary)
    if summary.unread:
        say(
            f"warning: could not find {counted(len(summary.unread), 'source')} to compare, such as {summary.unread[0]}",
            always=True,
        )
    labels = f", of which {summary.contradictions} have different labels" if summary.contradictions else ""
    dropped = f"; {summary.dropped} dropped" if drop else ""
    are = "is" if summary.duplicates == 1 else "are"
    count = f"{summary.duplicates} of {counted(summary.samples, 'sample')} {are} the same as an earlier one"
    say(f"{summary.store}: {count}, in {counted(len(summary.groups), 'group')}{labels}{dropped}")


def _tell_near(summary: "NearSummary", *, show: bool) -> None:
    for pair in summary.pairs[:SHOWN] if show else ():
        print(f"{pair.distance:6.1%}  {_named(pair.first)}  {_named(pair.second)}")
    if show and summary.count > SHOWN:
        print(f"and {summary.count - SHOWN} more pairs; --json lists the nearest {len(summary.pairs)}")
    rounds = "round" if summary.rounds == 1 else f"{summary.rounds} rounds"
    say(
        f"{summary.store}: {counted(summary.count, 'pair')} among {counted(summary.samples, 'sample')} with at most "
        f"{summary.percent:g} % of the bits of the first {rounds} different; look at them before you drop any"
    )


def _show(summary: "DedupeSummary") -> None:
    for group in summary.groups[:SHOWN]:
        first, *others = (_named(each) for each in group)
        print(f"{first} = {', '.join(others)}")
    if len(summary.groups) > SHOWN:
        print(f"and {len(summary.groups) - SHOWN} more groups; --json lists them all")


def _named(sample: Any) -> str:
    return sample.key if sample.label is None else f"{sample.key} ({sample.label})"
