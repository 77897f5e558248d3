"""What tests of sampling share."""

import pytest

from grncli.runtime.stopping import Stop


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
