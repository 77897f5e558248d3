"""Which of many are taken: all, the first so many, or a draw that depends on their names alone."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grncli.runtime.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """How many are taken; UsageError where both are named.

    Parameters
    ----------
    limit : the first so many
    sample : so many drawn by a hash of each name, kept in their order; a smaller draw is part of every larger one
    """

    limit: int | None = None
    sample: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.sample is not None:
            raise UsageError(f"--limit {self.limit} with --sample {self.sample}: expected one of the two")

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return self.limit is None and self.sample is None

    def __str__(self) -> str:
        return f"--limit {self.limit}" if self.limit is not None else f"--sample {self.sample}"

    def places(self, names: Iterable[str], count: int) -> Sequence[int]:
        """Places of what is taken of ``count`` things, ascending; their names are looked at for a draw only."""
        if self.sample is None or self.sample >= count:
            return range(count if self.limit is None else min(self.limit, count))
        ranked = zip(map(_rank, names), range(count), strict=True)
        return sorted(place for _, place in heapq.nsmallest(self.sample, ranked))

    def about(self) -> dict[str, Any]:
        """For the protocol beside a figure; empty where nothing is left out."""
        numbers = {"only_the_first": self.limit, "drawn_by_name": self.sample}
        return {name: number for name, number in numbers.items() if number is not None}

    def doubt(self, classes: Sequence[Any], taken: Sequence[int]) -> str | None:
        """A sentence where the first so many are all of one class, and there are others.

        Parameters
        ----------
        classes : of everything, None for what has no class
        taken : places of what is taken
        """
        if self.limit is None or len(taken) < 2 or len(taken) == len(classes):
            return None
        of_taken = {classes[place] for place in taken}
        several = len({name for name in classes if name is not None})
        if len(of_taken) > 1 or None in of_taken or several < 2:
            return None
        return (
            f"--limit {self.limit}: takes one class only ({of_taken.pop()}) of {several}; "
            f"--sample {self.limit} draws from all"
        )


def evenly_spread(wanted: int, total: int) -> list[int]:
    """Places of up to ``wanted`` of ``total`` things at even distances, the first and the last among them."""
    places: list[int] = np.linspace(0, total - 1, min(wanted, total)).round().astype(int).tolist()
    return places


def _rank(name: str) -> bytes:
    """What a draw is ordered by: never changed, as it decides what is in stores and behind figures."""
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
