"""The most memory that this process and those it started have had, where the system tells."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from grncli.runtime.system import resource

_PEAK = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
_PROC = Path("/proc")


def forget_peak() -> None:
    """Let the peak of this process begin with what it has now, where the system allows it; else it stays."""
    with suppress(OSError):
        (_PROC / "self/clear_refs").write_text("5")


def peak_of_process() -> int | None:
    """Bytes of main memory that this process has had at most; None where the system does not say."""
    known = _peak_of(os.getpid())
    if known is None and resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        known = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit
    return known


def peaks_of_children() -> dict[int, int]:
    """The same of each process that this one started and that still runs, by its number; Linux only."""
    peaks = {child: _peak_of(child) for child in _children()}
    return {child: peak for child, peak in peaks.items() if peak is not None}


def _peak_of(process: int) -> int | None:
    try:
        found = _PEAK.search((_PROC / str(process) / "status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _children() -> Iterator[int]:
    for file in _PROC.glob("self/task/*/children"):
        with suppress(OSError):
            yield from map(int, file.read_text().split())
