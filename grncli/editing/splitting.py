"""``grn store split``: one store into several, by shares that are drawn, or by a list."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grncli.editing.new_settings import edited_schema
from grncli.editing.opened_store import AnyStore, open_any_store
from grncli.editing.part_choice import captions_of
from grncli.editing.row_copying import CopiedPart, NewStore, copy_rows, require_complete
from grncli.editing.row_names import NamedRows
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.store.rows.row_lines import Line
from grncli.store.rows.stored_part import StoredPart

_WHOLE = 1e-6  # by which the sum of shares may miss 1

Assign = Callable[[Mapping[str, object]], int | None]
"""Number of the new store that the row or failure of a line goes to; None for none."""


@dataclass(frozen=True)
class SplitSummary:
    """What ``split`` made."""

    stores: tuple[Path, ...]
    samples: tuple[int, ...]  # of each
    made: bool  # False where all were there already


def split_by_share(
    path: Path, outs: Sequence[Path], shares: Sequence[float], seed: int, *, monitor: Monitor | None = None
) -> SplitSummary:
    """Divide a store; all samples of a source (windows, mirrored copies) go to the same new store.

    Sources are drawn by a hash of ``seed`` and their names, so that the same call gives the same stores anywhere.

    Raises
    ------
    Stopped
        If the monitor asks for it; what was copied is saved.
    UsageError
        If the shares do not sum to 1, are not one for each of ``outs``, or leave one of them without a sample.
    StoreError
    """
    if len(shares) != len(outs):
        raise UsageError(f"--share has {len(shares)} shares for {len(outs)} new stores, expected one for each")
    if not all(share > 0 for share in shares) or abs(sum(shares) - 1) > _WHOLE:
        raise UsageError(
            f"--share {','.join(map(str, shares))}: expected shares above 0 that sum to 1, such as 0.9,0.1"
        )
    store = _opened(path)
    unit = store.schema.required_fields[-1]
    counts: Counter[str] = Counter(line[unit] for line in store.records())
    failed = [line["source"] for line in store.failures()]
    drawn = _draw({**dict.fromkeys(failed, 0), **counts}, shares, seed)
    taken = ["share", list(shares), seed, store.digest()]
    return _split(
        store, outs, lambda line: drawn[str(line[unit if unit in line else "source"])], taken, monitor or Monitor()
    )


def split_by_names(
    path: Path, outs: Sequence[Path], names: Sequence[str], *, monitor: Monitor | None = None
) -> SplitSummary:
    """Copy the rows that are named (by key, source or prompt) to the first of ``outs``, the others to the second.

    Raises
    ------
    Stopped
        If the monitor asks for it; what was copied is saved.
    UsageError
        If a name is that of no row, one of ``outs`` would have no sample, or there are more than two.
    StoreError
    """
    if len(outs) > 2:
        raise UsageError(f"--keys divides into two stores, found {len(outs)}; expected OUT, or OUT REST")
    store = _opened(path)
    named = NamedRows(names, store.schema)

    def assign(line: Mapping[str, object]) -> int | None:
        place = 0 if line in named else 1
        return place if place < len(outs) else None

    for line in store.records():
        assign(line)
    named.require_met(path)
    return _split(store, outs, assign, ["keys", sorted(set(names)), store.digest()], monitor or Monitor())


def _opened(path: Path) -> AnyStore:
    store = open_any_store(path)
    require_complete(path, store.complete)
    return store


def _draw(counts: Mapping[str, int], shares: Sequence[float], seed: int) -> dict[str, int]:
    """For each name the number of its new store: names in the order of their hashes, cut by the samples they have."""

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()

    ends = np.round(np.cumsum(shares) * sum(counts.values()))
    drawn, before = {}, 0
    for name in sorted(counts, key=place):
        drawn[name] = min(int(np.searchsorted(ends, before, "right")), len(shares) - 1)
        before += counts[name]
    return drawn


def _split(
    store: AnyStore, outs: Sequence[Path], assign: Assign, taken: Sequence[object], monitor: Monitor
) -> SplitSummary:
    divided = [_divide(store, part, assign, len(outs)) for part in store.stored_parts().values()]
    new = [
        NewStore(out, edited_schema(store, "split", [number, *taken]), [part[number] for part in divided])
        for number, out in enumerate(outs)
    ]
    if len({out.path.resolve() for out in new}) < len(new):
        raise UsageError("a new store is named twice, expected another OUT for each")
    for out in new:
        if not out.samples:
            raise UsageError(
                f"{out.path}: would have none of the {len(store)} samples of {store.path}; nothing was made"
            )
    made = [not out.require_vacant([store.path]) for out in new]
    copy_rows([out for out, wanted in zip(new, made, strict=True) if wanted], monitor)
    return SplitSummary(tuple(outs), tuple(out.samples for out in new), any(made))


def _divide(store: AnyStore, part: StoredPart, assign: Assign, count: int) -> list[CopiedPart]:
    """What of a part goes to each new store."""
    rows: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(count)]
    sources: list[set[str]] = [set() for _ in range(count)]
    failures: list[list[Line]] = [[] for _ in range(count)]
    unit = store.schema.required_fields[-1]
    for line in part.lines.records():
        if (place := assign(line)) is not None:
            rows[place][line[store.schema.group_field]].append(line["row"])
            sources[place].add(line[unit])
    for failure in part.failures().values():
        if (place := assign(failure)) is not None:
            failures[place].append(failure)
    return [_copied(store, part, *one) for one in zip(rows, sources, failures, strict=True)]


def _copied(
    store: AnyStore, part: StoredPart, rows: Mapping[str, Sequence[int]], sources: set[str], failures: list[Line]
) -> CopiedPart:
    names = {*sources, *(line["source"] for line in failures)}
    return CopiedPart(
        part=part,
        rows={group: np.sort(np.array(rows[group])) for group in store.schema.in_order(rows)},
        position=len(names),
        digest="",  # the part holds the first ones of no listing
        sources=len(names),
        failures=[{**line, "position": place} for place, line in enumerate(failures)],
        captions=captions_of(store, part, sources),
    )
