"""Captions of single samples, read from their files when they are asked for: 32 bytes of each line are in memory."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.store.bit_store import BitStore
from grncli.store.captions import (
    CAPTIONS,
    Caption,
    CaptionLine,
    Captions,
    LinePlace,
    located_captions,
    parse_caption_line,
)
from grncli.store.rows.byte_source import ByteFile, ByteSource, OpenFiles
from grncli.store.rows.schema import part_name


class CaptionFiles:
    """Lines of a store's captions by their place."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._files = OpenFiles()

    def line(self, place: LinePlace) -> CaptionLine:
        """The line at a place; StoreError where it is another one by now."""
        name, data = f"{part_name(place.part)}/{CAPTIONS}", bytearray(place.size)

        def opened(part: int) -> ByteFile:
            return self._source.open(name)

        try:
            self._files.get(place.part, opened, place.part).read_into(memoryview(data), place.offset)
            found = google_crc32c.value(bytes(data))
        except (OSError, EOFError):
            found = None
        where = self._source.where(name)
        if found != place.crc32c:
            raise StoreError(
                f"{where} was changed since its captions were counted; run the same command again to go on with those "
                "that it has now, or restore it first."
            )
        return parse_caption_line(bytes(data), f"{where}, byte {place.offset}")


class CaptionIndex:
    """Finds the lines of a source; a part is gone through when the first sample of it is asked for."""

    def __init__(self, store: BitStore) -> None:
        self._store = store
        self._files = CaptionFiles(store.source)
        self._parts: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def of_sample(self, part: int, record: Mapping[str, Any]) -> tuple[Caption, ...]:
        """Captions of a sample of a part, by its line in ``samples.jsonl``; none where its source has no line."""
        source = record["source"]
        (wanted,) = source_hashes([source])
        for each in (part, *(other for other in self._store.stored_parts() if other != part)):
            lines = [line for line in self._lines(each, int(wanted)) if line.source == source]
            if lines:
                return Captions(lines).of_sample(record)
        return ()

    def _lines(self, part: int, wanted: int) -> list[CaptionLine]:
        hashes, places = self._part(part)
        first, end = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        return [self._files.line(LinePlace(part, *place)) for place in places[first:end].tolist()]

    def _part(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Hash of each line's source, ascending, and where the line stands."""
        if part not in self._parts:
            lines = [(line.source, place[1:]) for line, place in located_captions(self._store.source, part)]
            hashes = source_hashes(source for source, _ in lines)
            order = np.argsort(hashes, kind="stable")
            places = np.array([place for _, place in lines], np.int64).reshape(-1, 3)
            self._parts[part] = hashes[order], places[order]
        return self._parts[part]


def source_hashes(sources: Iterable[str]) -> NDArray[np.int64]:
    """8 bytes of each source, the same in every process."""
    digests = (blake2b(source.encode("utf-8", "surrogatepass"), digest_size=8).digest() for source in sources)
    return np.frombuffer(b"".join(digests), np.int64)
