"""What tests of sampling share."""

import sys
from pathlib import Path

import pytest

from grncli.runtime.stopping import Stop

# Test modules are imported by path; their shared toy_features.py needs a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))


class StopAfter(Stop):
    """A request to stop once it was asked for a number of times."""

    def __init__(self, times):
        super().__init__()
        self._left = times

    @property
    def reason(self):
        self._left -= 1
        return "test" if self._left < 0 else None


@pytest.fixture
def stop_after():
    """Makes a stop that asks for the end once it was looked at a number of times."""
    return StopAfter
