"""The commit record: what of a part counts. It is replaced in one step once the data it speaks of is on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grncli.errors import StoreError
from grncli.store.durable import replace_file
from grncli.store.layout import COMMIT, FORMAT, Grid, grid_name, parse_grid


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
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); mend that and try again.") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(content, dict) or "format" not in content:
        raise _damaged(path, "it is no commit record")
    if content.get("format") != FORMAT:
        raise StoreError(
            f"{path} has store format {content.get('format')}, and this version reads format {FORMAT}; "
            "update grn, or make the store again with --overwrite."
        )
    try:
        return _parse(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _parse(content: dict[str, Any]) -> PartRecord:
    grids: dict[Grid, GridRecord] = {}
    for name, values in content["grids"].items():
        grid = parse_grid(name)
        if grid is None:
            raise ValueError(f"{name!r} is not a grid")
        checksums = {str(array): [_whole(crc, array) for crc in crcs] for array, crcs in values["crc32c"].items()}
        grids[grid] = GridRecord(_count(values, "rows"), checksums)
    return PartRecord(
        position=_count(content, "position"),
        sources=None if content["sources"] is None else _count(content, "sources"),
        digest=str(content["digest"]),
        columns={str(name): str(dtype) for name, dtype in content["columns"].items()},
        grids=dict(sorted(grids.items())),
        samples_bytes=_count(content, "samples_bytes"),
        samples_crc32c=_count(content, "samples_crc32c"),
        failures_bytes=_count(content, "failures_bytes"),
        failures_crc32c=_count(content, "failures_crc32c"),
        failed=_count(content, "failed"),
        complete=bool(content["complete"]),
    )


def _count(content: dict[str, Any], name: str) -> int:
    return _whole(content[name], name)


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value!r}")
    return value


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(f"{path} is damaged ({reason}); restore it, or make the store again with --overwrite.")
