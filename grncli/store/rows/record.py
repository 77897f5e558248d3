"""The commit record: what of a part counts. It is replaced in one step, after the data it counts are on disk."""

import json
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.runtime.errors import StoreError
from grncli.runtime.files import replace_file
from grncli.runtime.jsonfiles import brief
from grncli.store.rows.byte_source import ByteSource, Committed, read_document
from grncli.store.rows.schema import COMMIT, FORMAT, Schema, part_name

_REMEDY = "restore it, or make the store again with --overwrite."
_LEAST_LINE = 20  # bytes of a line in samples.jsonl; it has at least a group and a row
_COUNTS = ("position", "samples_bytes", "samples_crc32c", "failures_bytes", "failures_crc32c", "failed")
_GROUPS = "grids"  # what groups are called in the file, whatever a store calls them


@dataclass
class GroupRecord:
    """Committed rows of one group, and for each of its arrays the crc32c of each chunk's committed rows."""

    rows: int = 0
    crc32c: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Python's numbers would take ten times the memory: a store of 40 million clips has 10 million chunks.
        self.crc32c = {name: array("I", checksums) for name, checksums in self.crc32c.items()}

    def document(self) -> dict[str, Any]:
        """As JSON data."""
        return {"rows": self.rows, "crc32c": {name: list(checksums) for name, checksums in self.crc32c.items()}}


@dataclass
class PartRecord:
    """Content of ``commit.json``, groups in their order. No times: a resumed run must write the same bytes."""

    position: int = 0
    sources: int | None = None
    digest: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    groups: dict[str, GroupRecord] = field(default_factory=dict)
    samples_bytes: int = 0
    samples_crc32c: int = 0
    failures_bytes: int = 0
    failures_crc32c: int = 0
    failed: int = 0
    complete: bool = False

    @property
    def samples(self) -> int:
        """Committed samples over all groups."""
        return sum(group.rows for group in self.groups.values())

    @property
    def committed_lines(self) -> Committed:
        """What counts of ``samples.jsonl``."""
        return Committed(self.samples_bytes, self.samples_crc32c)

    @property
    def committed_failures(self) -> Committed:
        """What counts of ``failures.jsonl``."""
        return Committed(self.failures_bytes, self.failures_crc32c)

    def write(self, part: Path) -> None:
        """Replace the part's record; from here on it counts."""
        content = {_GROUPS if name == "groups" else name: value for name, value in vars(self).items()}
        content[_GROUPS] = {name: group.document() for name, group in self.groups.items()}
        replace_file(part / COMMIT, json.dumps({"format": FORMAT, **content}).encode() + b"\n")


def read_record(
    source: ByteSource, part: int, schema: Schema, seen: Callable[[bytes], object] = lambda data: None
) -> PartRecord | None:
    """Record of a part, None when nothing of it was ever committed; StoreError when it is damaged.

    ``seen`` is called with the bytes of the file.
    """
    name = f"{part_name(part)}/{COMMIT}"
    where = source.where(name)
    try:
        content = read_document(source, name, _REMEDY, seen)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise _damaged(where, "it is no commit record")
    if content["format"] != FORMAT:
        raise StoreError(
            f"{where} has store format {brief(content['format'])}, and this version reads format {FORMAT}; "
            "update grn, or make the store again with --overwrite."
        )
    try:
        return _parse(content, schema)
    except KeyError as error:
        raise _damaged(where, f"has no field {error.args[0]}") from None
    except ValueError as error:
        raise _damaged(where, str(error)) from None


def _parse(content: dict[str, Any], schema: Schema) -> PartRecord:
    columns = _typed(content, "columns", dict, "an object")
    for name, dtype in columns.items():
        if not schema.is_column(name, dtype):
            raise ValueError(f"field columns.{brief(name)} is {brief(dtype)}, expected the type of a number")
    groups = _typed(content, _GROUPS, dict, "an object")
    for name in groups:
        if len(name) >= 64 or schema.group_order(name) is None:
            raise ValueError(f"{brief(name)} in field {_GROUPS} is not the name of a {schema.group_field}")
    record = PartRecord(
        sources=None if content["sources"] is None else _count(content, "sources"),
        digest=_typed(content, "digest", str, "text"),
        columns=columns,
        groups={name: _group(name, groups[name]) for name in schema.in_order(groups)},
        complete=_typed(content, "complete", bool, "true or false"),
        **{name: _count(content, name) for name in _COUNTS},
    )
    if record.samples * _LEAST_LINE > record.samples_bytes:
        raise ValueError(f"field samples_bytes is {record.samples_bytes}, too few for {record.samples} samples")
    for name, group in record.groups.items():
        # A store is read by what its checksums say.
        for layout in schema.layouts(name, columns):
            chunks, checksums = layout.chunk_count(group.rows), len(group.crc32c.get(layout.name, []))
            if chunks != checksums:
                raise ValueError(
                    f"{group.rows} rows of {name}/{layout.name} have {chunks} chunks, "
                    f"but the commit record has {checksums} checksums"
                )
    return record


def _group(name: str, values: Any) -> GroupRecord:
    if not isinstance(values, dict):
        raise ValueError(f"field {_GROUPS}.{name} is {brief(values)}, expected an object")
    checksums = _typed(values, "crc32c", dict, "an object")
    for layout, crcs in checksums.items():
        place = f"{_GROUPS}.{name}.crc32c.{brief(layout)}"
        if not isinstance(crcs, list):
            raise ValueError(f"field {place} is {brief(crcs)}, expected a list of numbers")
        if not (set(map(type, crcs)) <= {int} and 0 <= min(crcs, default=0) <= max(crcs, default=0) < 2**32):
            for crc in crcs:
                _whole(crc, place, 2**32)
    return GroupRecord(_count(values, "rows"), checksums)


def _typed(content: dict[str, Any], name: str, kind: type[Any], expected: str) -> Any:
    if type(content[name]) is not kind:
        raise ValueError(f"field {name} is {brief(content[name])}, expected {expected}")
    return content[name]


def _count(content: dict[str, Any], name: str) -> int:
    return _whole(content[name], name)


def _whole(value: Any, name: str, limit: int = 2**63) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"field {name[:100]} is {brief(value)}, expected a whole number from 0")
    return value


def _damaged(where: str, reason: str) -> StoreError:
    return StoreError(f"{where} is damaged ({reason}); {_REMEDY}")
