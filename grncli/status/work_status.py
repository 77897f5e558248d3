"""How far a store, a run, decoded files or a search is as a whole."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grncli.status.piece_status import PieceStatus, State

WORST_FIRST: Sequence[State] = ("damaged", "failed", "lost", "stopped", "unfinished", "running", "not begun")


@dataclass(frozen=True, kw_only=True)
class WorkStatus:
    """The pieces of one store, run, folder of decoded files or search, and their sums.

    Attributes
    ----------
    kind : ``bit store``, ``features store``, ``tokenizer``, ``generator``, ``decoded files`` or ``search``
    unit : what is counted
    pieces : every part of a store, whether it was begun or not; one of anything else
    """

    path: Path
    kind: str
    unit: str
    pieces: Sequence[PieceStatus]

    @property
    def states(self) -> Counter[State]:
        """How many pieces are in each state."""
        return Counter(piece.state for piece in self.pieces)

    @property
    def state(self) -> State:
        """``complete`` if all pieces are, ``running`` if one is, else the worst of them."""
        states = self.states
        if states["complete"] == len(self.pieces):
            return "complete"
        if states["running"]:
            return "running"
        worst = next(state for state in WORST_FIRST if states[state])
        return "unfinished" if worst == "not begun" and states["complete"] else worst

    @property
    def done(self) -> int:
        """Units of all pieces."""
        return sum(piece.done for piece in self.pieces)

    @property
    def total(self) -> int | None:
        """Units in all; where some pieces do not know theirs, about as many for each as the others have."""
        known = [piece.total for piece in self.pieces if piece.total is not None]
        return round(sum(known) / len(known) * len(self.pieces)) if known else None

    @property
    def is_estimated(self) -> bool:
        """Whether the total is that of some pieces for all."""
        return self.total is not None and any(piece.total is None for piece in self.pieces)

    @property
    def failed(self) -> int:
        """Sources that could not be read."""
        return sum(piece.failed for piece in self.pieces)

    @property
    def rate(self) -> float | None:
        """Units a second of all that run."""
        return math.fsum(piece.rate for piece in self.pieces if piece.rate) or None

    @property
    def seconds_left(self) -> float | None:
        """At the rate of those that run now, and not before the slowest of them has ended."""
        if self.rate is None or self.total is None:
            return None
        longest = max((piece.seconds_left or 0.0 for piece in self.pieces), default=0.0)
        return max(longest, (self.total - self.done) / self.rate)

    @property
    def moved(self) -> float | None:
        """Seconds since any of its writers counted."""
        return min((piece.moved for piece in self.pieces if piece.moved is not None), default=None)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with all pieces."""
        sums = ("state", "done", "total", "failed", "rate", "seconds_left", "moved")
        return {
            "path": str(self.path),
            "kind": self.kind,
            "unit": self.unit,
            **{name: getattr(self, name) for name in sums},
            "total_is_estimated": self.is_estimated,
            "states": dict(self.states),
            "pieces": [vars(piece) for piece in self.pieces],
        }
