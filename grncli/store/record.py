"""The commit record: what of a part counts. It is replaced in one step once the data it speaks of is on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.runtime.errors import StoreError
from grncli.runtime.files import replace_file
from grncli.runtime.jsonfiles import brief, read_json
from grncli.store.layout import COMMIT, FORMAT, Grid, grid_layouts, grid_name, is_stored_column, parse_grid

_REMEDY = "restore it, or make the store again with --overwrite."
_LEAST_LINE = 20  # bytes of a line in samples.jsonl; it has at least a grid and a row


@dataclass
class GridRecord:
    """Committed rows of one grid, and for each of its arrays the crc32c of each chunk's committed rows."""

    rows: int = 0
    crc32c: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class PartRecord:
    """Content of ``commit.json``. No times: a resumed run must write the same bytes."""

    position: int = 0
    sources: int | None = None
    digest: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    grids: dict[Grid, GridRecord] = field(default_factory=dict)
    samples_bytes: int = 0
    samples_crc32c: int = 0
    failures_bytes: int = 0
    failures_crc32c: int = 0
    failed: int = 0
    complete: bool = False

    @property
    def samples(self) -> int:
        """Committed samples over all grids."""
        return sum(grid.rows for grid in self.grids.values())

    def write(self, part: Path) -> None:
        """Replace the part's record; from here on it counts."""
        grids = {grid_name(grid): vars(self.grids[grid]) for grid in sorted(self.grids)}
        content = {"format": FORMAT, **vars(self), "grids": grids}
        replace_file(part / COMMIT, json.dumps(content).encode() + b"\n")


def read_record(part: Path) -> PartRecord | None:
    """Record of a part, None when nothing of it was ever committed; StoreError when it is damaged."""
    path = part / COMMIT
    try:
        content = read_json(path, error=StoreError, remedy=_REMEDY)
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or type(content.get("format")) is not int:
        raise _damaged(path, "it is no commit record")
    if content["format"] != FORMAT:
        raise StoreError(
            f"{path} has store format {brief(content['format'])}, and this version reads format {FORMAT}; "
            "update grn, or make the store again with --overwrite."
        )
    try:
        return _parse(content)
    except KeyError as error:
        raise _damaged(path, f"has no field {error.args[0]}") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def require_consistent(record: PartRecord, part: Path, rounds: int, channels: int) -> None:
    """Refuse counts that the checksums beside them do not bear out: a store is read by what they say."""
    for grid, committed in record.grids.items():
        for layout in grid_layouts(grid, rounds, channels, record.columns):
            expected, found = layout.chunk_count(committed.rows), len(committed.crc32c.get(layout.name, []))
            if found != expected:
                raise _damaged(
                    part / COMMIT,
                    f"{committed.rows} rows of {grid_name(grid)}/{layout.name} have {expected} chunks, "
                    f"but the commit record has {found} checksums",
                )


def _parse(content: dict[str, Any]) -> PartRecord:
    columns = _mapping(content, "columns")
    for name, dtype in columns.items():
        if not is_stored_column(name, dtype):
            raise ValueError(f"field columns.{brief(name)} is {brief(dtype)}, expected the type of a number")
    grids = {_grid(name): _grid_record(name, values) for name, values in _mapping(content, "grids").items()}
    record = PartRecord(
        position=_count(content, "position"),
        sources=None if content["sources"] is None else _count(content, "sources"),
        digest=_typed(content, "digest", str, "text"),
        columns=columns,
        grids=dict(sorted(grids.items())),
        samples_bytes=_count(content, "samples_bytes"),
        samples_crc32c=_count(content, "samples_crc32c"),
        failures_bytes=_count(content, "failures_bytes"),
        failures_crc32c=_count(content, "failures_crc32c"),
        failed=_count(content, "failed"),
        complete=_typed(content, "complete", bool, "true or false"),
    )
    if record.samples * _LEAST_LINE > record.samples_bytes:
        raise ValueError(f"field samples_bytes is {record.samples_bytes}, too few for {record.samples} samples")
    return record


def _grid(name: str) -> Grid:
    grid = parse_grid(name) if len(name) < 64 else None
    if grid is None:
        raise ValueError(f"{brief(name)} in field grids is not a grid such as 1x16x16")
    return grid


def _grid_record(name: str, values: Any) -> GridRecord:
    if not isinstance(values, dict):
        raise ValueError(f"field grids.{name} is {brief(values)}, expected an object")
    checksums = _mapping(values, "crc32c")
    for array, crcs in checksums.items():
        if not isinstance(crcs, list):
            raise ValueError(f"field grids.{name}.crc32c.{brief(array)} is {brief(crcs)}, expected a list of numbers")
        for crc in crcs:
            _whole(crc, f"grids.{name}.crc32c.{array}", 2**32)
    return GridRecord(_count(values, "rows"), checksums)


def _typed(content: dict[str, Any], name: str, kind: type[Any], expected: str) -> Any:
    if type(content[name]) is not kind:
        raise ValueError(f"field {name} is {brief(content[name])}, expected {expected}")
    return content[name]


def _mapping(content: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = _typed(content, name, dict, "an object")
    return found


def _count(content: dict[str, Any], name: str) -> int:
    return _whole(content[name], name)


def _whole(value: Any, name: str, limit: int = 2**63) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"field {name[:100]} is {brief(value)}, expected a whole number from 0")
    return value


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path} is damaged ({reason}); {_REMEDY}")
