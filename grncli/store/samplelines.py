"""Finding the line of a sample in its part's ``samples.jsonl``."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.runtime.errors import StoreError
from grncli.store.layout import Grid, grid_name
from grncli.store.textlog import parse_sample, readable

# The writer puts these two first, so that the index needs no JSON parser.
_HEAD = re.compile(rb'\{"grid": "([0-9]+x[0-9]+x[0-9]+)", "row": ([0-9]{1,18})[,}]')


class SampleLines:
    """The committed ``size`` bytes of a part's ``samples.jsonl``; its index is 8 bytes a sample, once needed."""

    def __init__(self, path: Path, size: int, rows: Mapping[Grid, int]) -> None:
        self.path = path
        self._size = size
        self._rows = {grid_name(grid): n for grid, n in rows.items()}
        self._offsets: dict[str, NDArray[np.int64]] | None = None

    def record(self, grid: Grid, row: int) -> dict[str, Any]:
        """Line of one sample."""
        return next(self._read(self._index()[grid_name(grid)][row : row + 1]))

    def records(self) -> Iterator[dict[str, Any]]:
        """Every line, grid after grid in ascending order, row after row."""
        if len(self._rows) <= 1:
            yield from self._in_order()
            return
        for offsets in self._index().values():
            yield from self._read(offsets)

    def _read(self, offsets: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        with readable(self.path) as file:
            for offset in offsets.tolist():
                file.seek(offset)
                yield parse_sample(file.readline(), self.path, f", byte {offset}")

    def _in_order(self) -> Iterator[dict[str, Any]]:
        left, number = self._size, 0
        with readable(self.path) as file:
            while left > 0:
                line, number = file.readline(), number + 1
                left -= len(line)
                yield parse_sample(line, self.path, f":{number}")

    def _index(self) -> dict[str, NDArray[np.int64]]:
        """Offset of each row's line, by grid."""
        if self._offsets is None:
            with readable(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._size:
                    raise self._damaged(f"{size} bytes, expected at least {self._size}")
                found = {name: np.full(n, -1, np.int64) for name, n in self._rows.items()}
                offset = 0
                while offset < self._size:
                    line = file.readline()
                    head = _HEAD.match(line)
                    rows = found.get(head[1].decode()) if head else None
                    if head is None or rows is None or int(head[2]) >= len(rows):
                        raise self._damaged(f"a line at byte {offset} that belongs to no sample")
                    rows[int(head[2])] = offset
                    offset += len(line)
            if any((offsets < 0).any() for offsets in found.values()):
                raise self._damaged("no line for some samples")
            self._offsets = found
        return self._offsets

    def _damaged(self, what: str) -> StoreError:
        return StoreError(f"{self.path} has {what}; restore it from a copy, or make the store again with --overwrite.")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_offsets": None}
