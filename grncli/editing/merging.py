"""``grn store merge``: the parts of several stores of one fingerprint as the parts of one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grncli.editing.new_settings import edited_schema
from grncli.editing.opened_store import AnyStore, open_any_store
from grncli.editing.part_choice import remaining_part
from grncli.editing.row_copying import CopiedPart, NewStore, copy_rows, require_complete
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.monitor import Monitor
from grncli.runtime.text import printable
from grncli.store import MAX_PARTS, BitStore
from grncli.store.captions import CaptionLine, Span, read_part_captions
from grncli.store.feature_settings import DIGEST
from grncli.store.rows.row_lines import Line
from grncli.store.text_features import FeatureStore

_REMEDY = "merge stores that were made alike"


@dataclass(frozen=True)
class MergeSummary:
    """What ``merge`` made."""

    store: Path
    samples: int
    parts: int
    repeated: int  # prompts of features stores that an earlier one has too, which are left out
    made: bool  # False where it was there already


def merge(
    paths: Sequence[Path], out: Path, *, prefix_keys: bool = False, monitor: Monitor | None = None
) -> MergeSummary:
    """Put stores of one fingerprint together, without the rows that they have dropped.

    Parameters
    ----------
    prefix_keys : let each key begin with the name of its store, for stores that have some alike

    Raises
    ------
    Stopped
        If the monitor asks for it; what was copied is saved.
    StoreMismatch
        If two were made otherwise, or name classes otherwise; the message names both.
    StoreError, UsageError
        If one is no store, is damaged or incomplete, or two have a sample of the same key.
    """
    stores = [_opened(path) for path in paths]
    labels = _require_alike(stores)
    names = _names(stores) if prefix_keys else [""] * len(stores)
    if not prefix_keys:
        _require_distinct_keys(stores)
    _require_common_captions([store for store in stores if isinstance(store, BitStore)])
    parts = list(_merged_parts(stores, names))
    if len(parts) > MAX_PARTS:
        raise UsageError(f"{out}: would have {len(parts)} parts, expected at most {MAX_PARTS}; compact and join fewer")
    schema = edited_schema(
        stores[0], "merge", [names, [store.digest() for store in stores]], parts=len(parts), labels=labels
    )
    new = NewStore(out, schema, parts)
    made = not new.require_vacant(paths)
    if made:
        copy_rows([new], monitor or Monitor())
    return MergeSummary(out, new.samples, len(parts), sum(map(len, stores)) - new.samples, made)


def _opened(path: Path) -> AnyStore:
    store = open_any_store(path)
    require_complete(path, store.complete)
    return store


def _require_alike(stores: Sequence[AnyStore]) -> tuple[str, ...]:
    """Class names of all stores; StoreMismatch where two of them do not fit."""
    first = longest = stores[0]
    if len({store.path.resolve() for store in stores}) < len(stores):
        raise UsageError("a store is named twice, expected each once")
    for store in stores:
        if type(store) is not type(first):
            raise StoreMismatch(
                f"{first.path} is a {first.schema.noun}, {store.path} a {store.schema.noun}; {_REMEDY}."
            )
        if store.columns != first.columns:
            columns = [", ".join(each.columns) or "none" for each in (first, store)]
            raise StoreMismatch(f"{first.path} has the columns {columns[0]}, {store.path} {columns[1]}; {_REMEDY}.")
        if isinstance(store, FeatureStore) and isinstance(first, FeatureStore):
            settings = replace(store.settings, parts=first.settings.parts)
            first.settings.require(settings, first.path, f"Asked for by {store.path}; {_REMEDY}.")
        elif isinstance(store, BitStore) and isinstance(first, BitStore):
            _require_fingerprint(first, store)
            assert isinstance(longest, BitStore)
            longest = _of_more_classes(longest, store)
    return longest.labels if isinstance(longest, BitStore) else ()


def _require_fingerprint(first: BitStore, other: BitStore) -> None:
    differing = [each for each in first.fingerprint.differences(other.fingerprint) if each.name != "labels"]
    if differing:
        shown = ", ".join(f"{each.name} is {brief(each.there)} and {brief(each.asked)}" for each in differing)
        raise StoreMismatch(f"{first.path} and {other.path} were made otherwise: {shown}; {_REMEDY}.")


def _of_more_classes(first: BitStore, other: BitStore) -> BitStore:
    """The one whose list of class names is longer and begins with the other's: a label is a place in the list."""
    for number, (ours, theirs) in enumerate(zip(first.labels, other.labels, strict=False)):
        if ours != theirs:
            raise StoreMismatch(
                f"class {number} is {brief(ours)} in {first.path} and {brief(theirs)} in {other.path}, expected the "
                "same names in the same order; make them again with one --class-names FILE."
            )
    return max(first, other, key=lambda store: len(store.labels))


def _names(stores: Sequence[AnyStore]) -> list[str]:
    """What the keys of each store begin with."""
    names = [store.path.resolve().stem for store in stores]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--prefix-keys: two stores are called {name}, expected names that differ; rename one")
    return names


def _require_distinct_keys(stores: Sequence[AnyStore]) -> None:
    """UsageError where two bit stores have a sample of the same key: nothing could tell these apart."""
    owners: dict[str, int] = {}
    for number, store in enumerate(stores):
        if not isinstance(store, BitStore):
            return
        for line in store.records():
            owner = owners.setdefault(line["key"], number)
            if owner != number:
                raise UsageError(
                    f"{stores[owner].path} and {store.path} both have a sample {printable(line['key'])}; drop it from "
                    "one of them, or let keys begin with the name of their store (--prefix-keys)"
                )


def _require_common_captions(stores: Sequence[BitStore]) -> None:
    """StoreError where one store has captions of a source and another has samples of it without: both would have them.

    Keys tell two sources of one name apart, but captions are found by the name.
    """
    captioned = [
        {line.source for part in store.stored_parts() for line in read_part_captions(store.source, part)}
        for store in stores
    ]
    owners: dict[str, int] = {}
    for number, store in enumerate(stores if any(captioned) else ()):
        for source in store.sources():
            pair = owners.setdefault(source, number), number
            having = [source in captioned[place] for place in pair]
            if having[0] != having[1]:
                with_them, without = sorted(pair, key=lambda place: source not in captioned[place])
                raise StoreError(
                    f"{stores[with_them].path} has captions of {printable(source)}, and {stores[without].path} has "
                    "samples of a source of that name without any; give them the same with grn captions."
                )


def _merged_parts(stores: Sequence[AnyStore], names: Sequence[str]) -> Iterator[CopiedPart]:
    """Every part of every store; of prompts and captions that several have, the first ones."""
    prompts = np.empty(0, "S32")
    captions = _OneCaption(stores)
    for number, (store, name) in enumerate(zip(stores, names, strict=True)):
        for place in range(len(store.parts)):
            part = remaining_part(store, place)
            if isinstance(store, FeatureStore):
                part, prompts = _without_prompts(part, prompts)
            if name:
                part = _prefixed(part, name)
            yield replace(part, captions=captions.distinct(number, part.captions))


def _prefixed(part: CopiedPart, name: str) -> CopiedPart:
    def rewrite(line: Line) -> Line:
        return {**line, "key": f"{name}/{line['key']}"} if "key" in line else line

    # The digest is one of keys.
    failures = [rewrite(line) for line in part.failures]
    return replace(part, rewrite=rewrite, failures=failures, gone=[f"{name}/{key}" for key in part.gone], digest="")


def _without_prompts(part: CopiedPart, known: NDArray[np.bytes_]) -> tuple[CopiedPart, NDArray[np.bytes_]]:
    """A part of a features store without the prompts of ``known`` digests, and these with its own."""
    rows = {}
    for group, kept in part.rows.items():
        [array] = [array for array in part.part.arrays[group] if array.layout.name == DIGEST]
        digests = array.read_all()[kept].view("S32").reshape(-1)
        new = ~np.isin(digests, known)
        known = np.concatenate([known, digests[new]])
        if new.any():
            rows[group] = kept[new]
    return replace(part, rows=rows), known


class _OneCaption:
    """Lets a source, or a stretch of it, have one line of captions over all stores."""

    def __init__(self, stores: Sequence[AnyStore]) -> None:
        self._stores = stores
        self._lines: dict[tuple[str, Span | None], tuple[int, CaptionLine]] = {}

    def distinct(self, number: int, lines: Sequence[CaptionLine]) -> list[CaptionLine]:
        """The lines of one part of a store that no earlier one has; StoreError where an earlier one differs."""
        new = []
        for line in lines:
            owner, known = self._lines.setdefault((line.source, line.span), (number, line))
            if known is line:
                new.append(line)
            elif known.captions != line.captions:
                raise StoreError(
                    f"{self._stores[owner].path} and {self._stores[number].path} have different captions of "
                    f"{printable(line.source)}; give them the same with grn captions."
                )
        return new
