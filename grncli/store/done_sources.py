"""Which sources a part of a bit store has done, by the lines it has of them, and digests of their keys."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any

from grncli.runtime.overlap import in_threads
from grncli.store.bits import BitSchema
from grncli.store.fingerprint import Fingerprint
from grncli.store.rows.byte_source import LocalFiles
from grncli.store.rows.dropped_rows import DroppedRows, read_dropped
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.row_lines import read_failures, read_rows, unresolved
from grncli.store.rows.schema import FAILURES, SAMPLES, part_name

_SET = "set:"
_BITS = 256  # of a hash, and of a sum of hashes
_HASHED_AT_ONCE = 4096  # keys: every part of a store looks at those of all others


@dataclass(frozen=True, slots=True)
class DoneSource:
    """A source that a part of a store has read, or failed to read."""

    key: str
    """What its samples are called, without the number of a window and without ``#flip``."""
    name: str
    """As the command that read it was given it."""
    nbytes: int | None
    """Of its file, or of the member of an archive; None where no line says."""
    failed: bool
    dropped: bool = False
    """Whether this sample of it was dropped: the source is done, and need not be there any more."""
    label: str | None = None
    """Name of its class as a line says it."""


class StoredSources:
    """The sources that each part of a local store has done, as committed now.

    Attributes
    ----------
    records : of each part, an empty one where nothing was committed
    """

    def __init__(self, path: Path, fingerprint: Fingerprint) -> None:
        """Read the commit records; StoreError for one that is damaged."""
        self._source = LocalFiles(path)
        self._schema = BitSchema(fingerprint)
        # What is dropped first, as it is among the rows that the record counts then.
        read = list(in_threads(self._read, range(fingerprint.parts)))
        self._dropped, self.records = [dropped for dropped, _ in read], [record for _, record in read]

    def _read(self, part: int) -> tuple[DroppedRows, PartRecord]:
        return read_dropped(self._source, part), read_record(self._source, part, self._schema) or PartRecord()

    def of(self, part: int) -> Iterator[DoneSource]:
        """What the lines of a part name: a source once for each of its samples, or as one that failed.

        Raises
        ------
        StoreError
            If a line cannot be read.
        """
        folder, record = part_name(part), self.records[part]
        dropped = self._dropped[part]
        rows = {group: frozenset(dropped.rows(group).tolist()) for group in dropped.groups}
        stored = {group: each.rows for group, each in record.groups.items()}
        for line in read_rows(self._source, f"{folder}/{SAMPLES}", record.committed_lines, self._schema, stored):
            gone = line["row"] in rows.get(line["grid"], ())
            key, label = source_key(line), line.get("label")
            yield DoneSource(key, line["source"], line.get("bytes"), failed=False, dropped=gone, label=label)
        for key in dropped.gone:
            yield DoneSource(key, key, None, failed=False, dropped=True)
        failures = read_failures(self._source, f"{folder}/{FAILURES}", record.committed_failures)
        for line in unresolved(failures).values():
            name: str = line["source"]
            yield DoneSource(line.get("key", name), name, None, failed=True)  # lines of older versions have no key


def source_key(line: Mapping[str, Any]) -> str:
    """Key of the source that the line of a sample is about."""
    key: str = line["key"]
    if line.get("flip"):
        key = key.removesuffix("#flip")
    return key.removesuffix(f"#{line['clip']}") if "clip" in line else key


def is_of_a_set(digest: str) -> bool:
    """Whether a part's digest is that of a set of keys, so that it does not say in which order they were done."""
    return digest.startswith(_SET)


class OrderedKeys:
    """Digest of keys in the order in which they are added."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._hash = hashlib.sha256()
        self.add(keys)

    def add(self, keys: Iterable[str]) -> None:
        """Take further keys."""
        encoded = map(encode_basestring_ascii, keys)
        while some := "".join(islice(encoded, _HASHED_AT_ONCE)):
            self._hash.update(some.encode())

    def digest(self) -> str:
        """Of all keys so far, 64 hexadecimal digits."""
        return self._hash.hexdigest()


class KeySet:
    """Digest of distinct keys in whatever order they are added: the sum of their hashes, modulo 2**256."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._sum = 0
        self.add(keys)

    def add(self, keys: Iterable[str]) -> None:
        """Take further keys, none of them twice."""
        hashes = (hashlib.sha256(encode_basestring_ascii(key).encode()).digest() for key in keys)
        self._sum = (self._sum + sum(map(int.from_bytes, hashes))) % (1 << _BITS)

    def digest(self) -> str:
        """Of all keys so far, ``set:`` and 64 hexadecimal digits."""
        return f"{_SET}{self._sum:0{_BITS // 4}x}"
