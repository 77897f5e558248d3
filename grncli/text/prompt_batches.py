"""Prompts through an encoder: batches of one length, and what is said of prompts that are cut."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from grncli.text.prompts import shortened

BATCH_TOKENS = 512
SHOWN_CUTS = 3


def length_batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of prompts that are encoded together: of one length, in ascending order of length and position.

    A batch has at most `BATCH_TOKENS` tokens, or one prompt. What is left after some batches is divided like the whole.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for length, positions in groupby(order, key=lengths.__getitem__):
        same, size = list(positions), max(1, BATCH_TOKENS // length)
        for first in range(0, len(same), size):
            yield same[first : first + size]


def describe_cuts(cuts: Sequence[tuple[str, str]], most: int) -> str:
    """One sentence about prompts longer than ``most`` tokens: (name, first word that is left out) of each."""
    places = [f"{name} at {shortened(word)}" for name, word in cuts]
    if len(places) == 1:
        return f"warning: a prompt has more than {most} tokens and is cut: {places[0]}"
    more = len(places) - SHOWN_CUTS
    shown = [*places[:SHOWN_CUTS], *([f"and {more} more"] if more > 0 else [])]
    return f"warning: {len(places)} prompts have more than {most} tokens and are cut: {', '.join(shown)}"
