"""``grn info`` of a bit store's captions, one part of it in memory at a time."""

from array import array
from collections import Counter
from typing import Any

import numpy as np

from grncli.media.selection import evenly_spread
from grncli.store import BitStore
from grncli.store.captions import Captions, digest_of, read_part_captions

EXAMPLES = 3


def describe_captions(store: BitStore) -> dict[str, Any] | None:
    """Counts and a few captions, ready for JSON; None for a store without captions."""
    parts = store.stored_parts()
    if not any(next(read_part_captions(store.source, part), None) for part in parts):
        return None
    samples, hashes, kinds, examples = 0, 0, Counter[str | None](), list[dict[str, str]]()
    sources, others = array("q"), array("q")  # hashes of captioned sources, and of those that samples ask others for
    for part, stored in parts.items():
        captions = Captions(read_part_captions(store.source, part))
        names = sorted(captions)
        sources.extend(map(hash, names))
        lines = [line for name in names for line in captions.lines(name)]
        hashes += sum(line.hash() for line in lines)
        kinds.update(caption.kind for line in lines for caption in line.captions)
        examples += _examples(captions, names)
        for record in stored.lines.records():
            samples += bool(captions.of_sample(record))
            if record["source"] not in captions:
                others.append(hash(record["source"]))
    known = np.unique(np.frombuffer(sources, np.int64))
    return {
        "samples": samples + int(np.isin(np.frombuffer(others, np.int64), known).sum()),
        "sources": len(known),
        "captions": kinds.total(),
        "kinds": {str(kind): count for kind, count in kinds.items() if kind is not None},
        "sha256": digest_of(hashes),
        "examples": [examples[place] for place in evenly_spread(EXAMPLES, len(examples))],
    }


def _examples(captions: Captions, names: list[str]) -> list[dict[str, str]]:
    """One caption each of sources at even distances."""
    chosen = (names[place] for place in evenly_spread(EXAMPLES, len(names)))
    return [{"source": source, "caption": captions.of(source)[0].text} for source in chosen]
