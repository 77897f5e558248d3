import sys
from pathlib import Path

import pytest

# Test modules are imported by path; these share what is in this folder, and the small stores of another.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "store")]

from small_stores import run
from store_fixtures import instant_disk, memory_disk, small_chunks

__all__ = ["instant_disk", "memory_disk", "small_chunks"]


@pytest.fixture
def store(memory_disk, small_chunks):
    """A finished store of two parts, each with all three grids and two failures."""
    path = memory_disk / "store.zarr"
    for part in range(2):
        run(path, part=part, parts=2, sources=9 + 4 * part)
    return path
