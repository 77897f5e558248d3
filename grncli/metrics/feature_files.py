"""Features of many pictures on disk, for what needs each of them: 50,000 times 2,048 numbers are 400 MB of memory."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike, NDArray

from grncli.runtime.files import naming

Features = NDArray[np.float32]
ROWS = 2048  # of a block


class FeatureFile:
    """float32 vectors ``[n, D]`` in a nameless temporary file, each at the place of its picture.

    Places may be filled in any order; those that never are (a source that could not be read) do not count.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this object
        self._filled: list[int] = []  # places, in the order of the vectors in the file
        self._order: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._filled)

    def put(self, places: NDArray[np.int64], vectors: Features) -> None:
        """Keep vectors ``[n, D]`` of pictures at places ``[n]``."""
        with naming(Path(tempfile.gettempdir())):  # nameless, but its folder may be full
            self._file.seek(len(self._filled) * self._bytes)
            self._file.write(np.ascontiguousarray(vectors, np.float32).tobytes())
            self._file.flush()
        self._filled.extend(places.tolist())
        self._order = None

    def read(self, rows: ArrayLike) -> Features:
        """Vectors ``[n, D]`` by number, in the order of the places."""
        if self._order is None:
            self._order = np.argsort(np.array(self._filled, np.int64), kind="stable")
        chosen = self._order[np.asarray(rows)]
        if len(chosen) and (np.diff(chosen) == 1).all():
            return self._read(int(chosen[0]), len(chosen))
        out = np.empty((len(chosen), self.dimensions), np.float32)
        for target in np.argsort(chosen).tolist():
            out[target] = self._read(int(chosen[target]), 1)
        return out

    def _read(self, start: int, count: int) -> Features:
        self._file.seek(start * self._bytes)
        return np.frombuffer(self._file.read(count * self._bytes), np.float32).reshape(count, self.dimensions).copy()

    def blocks(self, size: int = ROWS) -> Iterator[Features]:
        """All vectors in order, a block at a time."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))

    def places(self) -> list[int]:
        """Places that are filled, in the order of their vectors in the file."""
        return self._filled

    @property
    def _bytes(self) -> int:
        return 4 * self.dimensions
