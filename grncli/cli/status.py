"""``grn status``: how far all parts and runs of a job are, at a glance."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from grncli.cli import options
from grncli.cli.console import format_seconds, guarded, print_json, say
from grncli.cli.help_pages import examples
from grncli.cli.terminal import screen_width, table_lines, wrap

if TYPE_CHECKING:
    from grncli.status.piece_status import PieceStatus
    from grncli.status.work_status import WorkStatus

SHOWN_PARTS = 20  # of a store, those in trouble first
HEADS = ["", "state", "done", "%", "a second", "left", "failed", "by", "moved"]


@examples(
    "grn status photos.zarr",
    "# Everything below a folder, over and over",
    "watch -n 30 grn status runs",
    "# Numbers of the parts that are not complete",
    "grn status photos.zarr --json \\",
    "    | jq -c 'map(.pieces[]|select(.state!=\"complete\").part)'",
)
@guarded
def status(
    paths: Annotated[
        list[Path],
        Argument(
            metavar="DIR...",
            help="Stores, runs, folders of samples, decoded files or searches, or folders of them.",
            show_default=False,
        ),
    ],
    json: options.Json = False,
) -> None:
    """Show how far the parts and runs of a job are.

    It tells what is done, at which rate and how long the rest takes, failures, who writes and why a writer ended. A
    writer is lost that ended without a word: its process was killed, or its machine cannot be reached. Parts that are
    complete are counted only.
    """
    from grncli.calls.status_call import work_status

    works = work_status(paths)
    if json:
        print_json([work.to_json() for work in works])
        return
    rows = [row for work in works for row in _rows(work)]
    said = [place for place, head in enumerate(HEADS) if not head or any(row[place] for row in rows)]
    shown = [[row[place] for place in said] for row in rows]
    for line in table_lines([HEADS[place] for place in said], shown, screen_width(), names={0}):
        print(line)
    for sentence in (sentence for work in works for sentence in _sentences(work)):
        for line in wrap(sentence, screen_width()):
            print(line)
    states = [work.state for work in works]
    say(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def _sentences(work: "WorkStatus") -> Iterator[str]:
    """Why writers ended, and a source that could not be read."""
    for piece in work.pieces:
        if piece.reason:
            name = work.path if len(work.pieces) == 1 else f"{work.path} part {piece.part}"
            yield f"{name}: {piece.state}: {piece.reason}"
    failure = next((piece.last_failure for piece in work.pieces if piece.last_failure), None)
    if failure is not None:
        yield f"{work.path}: {work.failed} could not be read, such as {failure}"


def _rows(work: "WorkStatus") -> Iterator[list[str]]:
    """A row of the whole, and one for each part that is not complete where there are several."""
    if len(work.pieces) == 1:
        yield _row(str(work.path), work.state, work.pieces[0], work.unit)
        return
    about = "about " if work.is_estimated else ""
    done = f"{work.done}/{about}{work.total}" if work.total is not None else str(work.done)
    yield [
        str(work.path),
        ", ".join(f"{count} {state}" for state, count in sorted(work.states.items())),
        f"{done} {work.unit}",
        *_figures(work.done, work.total, work.rate, work.seconds_left),
        str(work.failed or ""),
        "",
        _ago(work.moved),
    ]
    yield from _part_rows(work)


def _part_rows(work: "WorkStatus") -> Iterator[list[str]]:
    from grncli.status.work_status import WORST_FIRST

    begun = [piece for piece in work.pieces if piece.state not in ("complete", "not begun")]
    begun.sort(key=lambda piece: WORST_FIRST.index(piece.state))
    for piece in sorted(begun[:SHOWN_PARTS], key=lambda piece: piece.part or 0):
        yield _row(f"  part {piece.part}", piece.state, piece, work.unit)
    if len(begun) > SHOWN_PARTS:
        yield [f"  and {len(begun) - SHOWN_PARTS} more", *[""] * (len(HEADS) - 1)]
    waiting = [piece.part or 0 for piece in work.pieces if piece.state == "not begun"]
    if waiting:
        yield [f"  {_ranges(waiting)}", "not begun", *[""] * (len(HEADS) - 2)]


def _row(name: str, state: str, piece: "PieceStatus", unit: str) -> list[str]:
    done = f"{piece.done}{'' if piece.total is None else f'/{piece.total}'} {unit}"
    by = "" if piece.host is None else f"{piece.host}:{piece.pid}"
    figures = _figures(piece.done, piece.total, piece.rate, piece.seconds_left)
    return [name, state, done, *figures, str(piece.failed or ""), by, _ago(piece.moved)]


def _figures(done: int, total: int | None, rate: float | None, left: float | None) -> list[str]:
    """Share, rate and time left, as far as they are known."""
    return [
        f"{100 * done / total:.0f}" if total else "",
        "" if rate is None else f"{rate:.3g}",
        "" if left is None else format_seconds(left),
    ]


def _ago(seconds: float | None) -> str:
    return "" if seconds is None else f"{format_seconds(seconds)} ago"


def _ranges(numbers: Sequence[int]) -> str:
    """``parts 3, 5-7`` of ascending numbers; only the first and the last few ranges of many."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after > before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after > before + 1), numbers[-1]]
    texts = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    if len(texts) > 4:
        texts = [*texts[:2], "...", texts[-1]]
    return f"part{'s' if len(numbers) > 1 else ''} {', '.join(texts)}"
