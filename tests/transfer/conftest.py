import sys
from pathlib import Path

# Test modules are imported by path; these share the small stores of another folder.
sys.path.append(str(Path(__file__).parents[1] / "store"))

import pytest
from store_fixtures import instant_disk, memory_disk, small_chunks

__all__ = ["instant_disk", "memory_disk", "small_chunks"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """What is read from URLs is kept for this test only."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
