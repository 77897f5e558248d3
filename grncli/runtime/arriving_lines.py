"""Lines that arrive while one waits for them, on a pipe or a terminal, and what is asked meanwhile."""

import os
import select
import time
from collections.abc import Callable, Iterator

MAX_LINE_BYTES = 1 << 20
_LOOK_SECONDS = 0.1
_PIECE = 1 << 16  # bytes


def arriving_lines(descriptor: int, waiting: Callable[[float], object]) -> Iterator[bytes]:
    """Lines without their ends, to the end of what is written; blank ones do not count.

    Parameters
    ----------
    waiting : called before each look, about ten times a second while nothing comes, with the seconds since something
        came; it ends the wait by an exception

    Raises
    ------
    ValueError
        If a line is longer than `MAX_LINE_BYTES`.
    """
    heard, rest = time.monotonic(), b""
    while True:
        waiting(time.monotonic() - heard)
        if not select.select([descriptor], [], [], _LOOK_SECONDS)[0]:
            continue
        piece = os.read(descriptor, _PIECE)
        *whole, rest = (rest + piece).split(b"\n") if piece else (rest, b"")
        if max(map(len, (*whole, rest))) > MAX_LINE_BYTES:
            raise ValueError(f"a line has more than {MAX_LINE_BYTES >> 20} MiB")
        yield from (line for line in whole if line.strip())
        if not piece:
            return
        heard = time.monotonic()
