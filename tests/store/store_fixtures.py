"""Stores in small pieces, and disks that are quick."""

import os
import tempfile
from pathlib import Path

import pytest

from grncli.store.rows import schema


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of a few rows, so that small runs have full and partial ones."""
    monkeypatch.setattr(schema, "CHUNK_BYTES", 100)
    monkeypatch.setattr(schema, "NUMBER_CHUNK_ROWS", 4)


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch):
    """No waiting for the disk: what a killed process leaves does not depend on it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def memory_disk():
    """A folder for tests that write the same small store hundreds of times."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
