import os
import sys
from pathlib import Path

import pytest

from grncli.store import layout

# Test modules are imported by path; their shared small_stores.py, and processes they start, need a folder to look in.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few rows, so that small runs have full and partial ones."""
    monkeypatch.setattr(layout, "CHUNK_BYTES", 100)
    monkeypatch.setattr(layout, "NUMBER_CHUNK_ROWS", 4)


@pytest.fixture
def instant_disk(monkeypatch):
    """No waiting for the disk, for tests of what a killed process leaves: that does not depend on it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
