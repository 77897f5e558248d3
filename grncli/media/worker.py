"""A process that performs reading jobs for a :class:`~grncli.media.decoder.DecoderPool`.

Started as ``python -m grncli.media.worker`` in a process group of its own. It takes jobs from standard
input, answers in the same order on standard output, and ends, with a running ffmpeg, as soon as its
standard input ends, so that it does not outlive the run, even one that was killed.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import BinaryIO

from grncli.media.jobs import ALIVE, READY, decode_job, encode_end, encode_piece, perform
from grncli.runtime.errors import MediaError
from grncli.runtime.freed_memory import keep_usual_memory
from grncli.runtime.system import ASKING_TO_END, kill_group

_HEARTBEAT = 0.2
"""Seconds between signs of life while a long clip is read."""
_SMALL = 1 << 16
_RECEIVED = 1 << 16


def main() -> None:
    """Perform jobs until standard input ends."""
    # Decoders written in C print to descriptor 1 now and then; the replies get one of their own.
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for number in ASKING_TO_END:
        # A batch system sends them to every process of a job; the run stops by itself, and its workers then end.
        signal.signal(number, signal.SIG_IGN)
    keep_usual_memory()
    jobs: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    _send(out, READY)
    while True:
        for line in jobs.get():
            _answer(line, out)


def _receive(jobs: queue.SimpleQueue[list[bytes]]) -> None:
    """Hand on jobs as many at a time as came together: a small image takes less time than two threads to alternate."""
    rest = b""
    while data := os.read(sys.stdin.fileno(), _RECEIVED):
        *lines, rest = (rest + data).split(b"\n")
        jobs.put(lines)
    _end()


def _end() -> None:
    if os.getpgrp() == os.getpid():
        kill_group(0)
    os._exit(0)


def _answer(line: bytes, out: BinaryIO) -> None:
    source, task = decode_job(line)
    spoken = time.monotonic()

    def alive() -> None:
        nonlocal spoken
        if time.monotonic() - spoken > _HEARTBEAT:
            _send(out, ALIVE)
            spoken = time.monotonic()

    pieces = perform(source, task, alive)
    unsent = b""
    try:
        while True:
            piece = next(pieces)
            head = encode_piece(piece)
            if piece.pixels.nbytes <= _SMALL:
                # One write for a small image and its end: half the time goes into system calls.
                _send(out, unsent)
                unsent = head + piece.pixels.tobytes()
            else:
                _send(out, unsent + head)
                _send(out, piece.pixels.data.cast("B"))
                unsent = b""
    except StopIteration as end:
        _send(out, unsent + encode_end(None, end.value))
    except MediaError as error:
        _send(out, unsent + encode_end(str(error), None))


def _send(out: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[out.write(view) :]
        except BrokenPipeError:
            _end()


if __name__ == "__main__":
    main()
