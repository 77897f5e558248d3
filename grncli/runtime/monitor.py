"""What work may do while it runs: see whether to stop, report how far it is, and say a sentence."""

from collections.abc import Callable
from dataclasses import dataclass, field

from grncli.runtime.stopping import Stop, Unfinished

Say = Callable[[str], None]


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Monitor:
    """Passed to every stage by its caller; the default one never stops the work and drops what is reported.

    Attributes
    ----------
    stop : asked between steps
    progress : called with (units done, units in all or None, a note) now and then
    say : called with one sentence at a time: what begins, and what the user should know
    """

    stop: Stop = field(default_factory=Stop)
    progress: Callable[[int, int | None, str], object] = _ignore
    say: Say = _ignore

    @property
    def stop_reason(self) -> str | None:
        """Why the work should end now, in words, or None."""
        return self.stop.reason

    def require_time(self, done: str) -> None:
        """For work of which nothing is kept: Unfinished with what was ``done`` where it should stop now."""
        if (reason := self.stop.reason) is not None:
            raise Unfinished(f"{reason}: stopped {done}")
