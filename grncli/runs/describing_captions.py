"""``grn info`` of a bit store's captions."""

from collections import Counter
from typing import Any

from grncli.media.selection import evenly_spread
from grncli.store import BitStore
from grncli.store.captions import Captions, read_captions

EXAMPLES = 3


def describe_captions(store: BitStore) -> dict[str, Any] | None:
    """Counts and a few captions, ready for JSON; None for a store without captions."""
    captions = read_captions(store)
    if not len(captions):
        return None
    every = [caption for source in captions for caption in captions.of(source)]
    kinds = Counter(caption.kind for caption in every)
    return {
        "samples": sum(bool(captions.of_sample(record)) for record in store.records()),
        "sources": len(captions),
        "captions": len(every),
        "kinds": {str(kind): count for kind, count in kinds.items() if kind is not None},
        "sha256": captions.digest(),
        "examples": _examples(captions),
    }


def _examples(captions: Captions) -> list[dict[str, str]]:
    """One caption each of sources at even distances."""
    sources = sorted(captions)
    chosen = (sources[place] for place in evenly_spread(EXAMPLES, len(sources)))
    return [{"source": source, "caption": captions.of(source)[0].text} for source in chosen]
