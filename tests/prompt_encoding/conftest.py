import os
import sys
from pathlib import Path

import pytest

# Test modules are imported by path; their shared toy_encoder.py, and processes they start, need a folder to look in.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch):
    """No waiting for the disk: what a killed process leaves does not depend on it."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
