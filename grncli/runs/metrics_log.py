"""The log of a training, ``metrics.jsonl`` in its run directory: one JSON object a logged step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grncli.runtime.errors import CheckpointError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.jsonlines import read_lines

METRICS = "metrics.jsonl"
MOST_STEPS = 1 << 53  # beyond, a float does not tell steps apart


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """Complete lines of a log, each with a whole number as ``step``; a line torn by a crash is left out.

    Raises
    ------
    CheckpointError
        If a line before the last is damaged.
    """
    if not path.exists():
        return
    remedy = "remove that line, or move the file away, and run the same command again"
    for place, line in read_lines(path, error=CheckpointError, remedy=remedy):
        step = line.get("step")
        if type(step) is not int or not 0 <= step < MOST_STEPS:
            raise CheckpointError(f"{place}: field step is {brief(step)}, expected a number of steps; {remedy}")
        yield line
