"""What is wrong with how a bit store is divided into parts, by their commit records: missing and doubled parts."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from grncli.runtime.jsonfiles import brief
from grncli.store.bit_store import BitStore
from grncli.store.done_sources import is_of_a_set
from grncli.store.rows.record import PartRecord
from grncli.store.rows.schema import EDITED, named_parts, part_name

_SHOWN = 5


def unfinished_parts(store: BitStore) -> str:
    """Which parts are missing or not complete, as a clause; empty for a store of one part, and where all are complete.

    ``part-00003 is missing, part-00004 and part-00005 are not complete``
    """
    if len(store.parts) == 1:
        return ""
    committed = {number for number, part in store.stored_parts().items() if part.committed}
    missing = [part.part for part in store.parts if part.part not in committed]
    begun = [part.part for part in store.parts if part.part in committed and not part.complete]
    clauses = [f"{named_parts(missing)} missing"] if missing else []
    return ", ".join([*clauses, *([f"{named_parts(begun)} not complete"] if begun else [])])


def part_faults(store: BitStore) -> list[str]:
    """What tells that samples are doubled or left out though parts are complete, one sentence each.

    The same array job started twice, with lists of different sources, or with another number of parts leaves such
    stores. Parts that were merged or split are of no common list, and are not compared, nor are those added to.
    """
    if EDITED in store.fingerprint.versions:
        return list(_strays(store))
    compared = {
        number: part.record
        for number, part in store.stored_parts().items()
        if part.record.complete and part.record.digest and not is_of_a_set(part.record.digest)
    }
    return [*_strays(store), *_doubled(store, compared), *_of_other_lists(store, compared)]


def doubled_samples(store: BitStore) -> list[str]:
    """Samples of one key, wherever in the store they are; reads through every ``samples.jsonl``.

    The first few have a sentence each. Of every sample 8 bytes are kept.
    """
    hashes = np.fromiter((hash(line["key"]) for line in store.records()), np.int64)
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    again = again[np.argsort(order[again + 1])]  # in the order of the store
    sentences = []
    for place in again[:_SHOWN].tolist():
        first, second = order[place : place + 2].tolist()
        key, one, two = (store.record(first)["key"], *(part_name(store.place_of(i)[0]) for i in (first, second)))
        where = "twice" if one == two else f"and {two} has it too"
        sentences.append(f"{store.path}: {one} has the sample {brief(key)} {where}; leave one out with grn store drop.")
    if len(again) > _SHOWN:
        sentences.append(f"{store.path}: {len(again) - _SHOWN} more samples have the key of another.")
    return sentences


def unlike_lists(counts: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Two parts that are not of one list, by the number of sources that each part has; None where all may be.

    Parts take the sources of a list in turn, so that a later part has as many as an earlier one, or one less.
    """
    if not counts:
        return None
    first, most = counts[0]
    for number, count in counts:
        if not most - 1 <= count <= most:
            return first, number
    return next(((one, two) for (one, some), (two, more) in pairwise(counts) if more > some), None)


def _strays(store: BitStore) -> Iterator[str]:
    for name in store.strays:
        where = store.source.where(name)
        yield f"{where} is not one of the store's {len(store.parts)} parts; move it away."


def _doubled(store: BitStore, records: dict[int, PartRecord]) -> Iterator[str]:
    first: dict[str, int] = {}
    for number, record in records.items():
        other = first.setdefault(record.digest, number)
        if other != number and record.position:
            yield (
                f"{store.path}: {part_name(other)} and {part_name(number)} hold the same sources; make the one that "
                f"was not made of its own again, with {_option(store, other)} or {_option(store, number)}."
            )


def _of_other_lists(store: BitStore, records: dict[int, PartRecord]) -> Iterator[str]:
    counts = [(number, record.sources) for number, record in records.items() if record.sources is not None]
    unlike = unlike_lists(counts)
    if unlike is not None:
        (one, some), (two, others) = ((number, dict(counts)[number]) for number in unlike)
        yield (
            f"{store.path}: {part_name(one)} was made of {some} sources and {part_name(two)} of {others}, which are no "
            "shares of one list, so that sources are doubled or left out; make all parts of the same SRC."
        )


def _option(store: BitStore, part: int) -> str:
    return f"--part {part}/{len(store.parts)} --overwrite"
