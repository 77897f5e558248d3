"""Reading sources in worker processes, so that no file can stop or crash the run."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import grncli
from grncli.media.jobs import Task, decode_head, encode_job, perform
from grncli.media.random_crops import Crop
from grncli.media.reading import Piece, ReadSettings
from grncli.media.sources import Source
from grncli.runtime.errors import GrnError, MediaError
from grncli.runtime.system import kill_group, require_pipes, widen_pipe

AHEAD = 8
"""Jobs sent to each worker before the first of them is answered."""
# What a worker has been sent but not answered must fit its pipe (64 KiB), or both sides could wait.
_UNANSWERED_BYTES = 32 << 10
_START_TIMEOUT = 120.0
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Done:
    """The last event of a source."""

    error: str | None
    """Why it could not be read, without its name; pieces that came before are to be dropped."""
    note: str | None
    """What was left out of it."""


class _Lost(Exception):
    """A worker that stalled or died; the message is the reason."""


class DecoderPool:
    """Worker processes that read sources in order; use as a context manager.

    Parameters
    ----------
    workers : number of processes, started when first needed; 0 reads in the calling thread, without
        protection from decoders that hang or crash
    timeout : seconds without a sign of life after which a source fails and its worker is replaced

    One reading at a time: starting another ends the one before it.
    """

    def __init__(self, workers: int, timeout: float = 60.0) -> None:
        self._abandoned = threading.Event()
        self._timeout = timeout
        self._workers: list[_Worker | None] = [None] * workers
        self._turn = 0

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers now; the pool can be used again."""
        self._turn += 1
        for slot in range(len(self._workers)):
            self._drop(slot)
        self._abandoned.clear()

    def abandon(self) -> None:
        """Make the reading under way raise RuntimeError at once; for another thread than the one that reads.

        A reading that waits for a worker ends within a tenth of a second and kills those that are busy; one in
        the calling thread (0 workers) only ends with its next event. Only ``close`` makes the pool usable again.
        """
        self._abandoned.set()

    def read(self, sources: Iterable[Source], settings: ReadSettings) -> Iterator[tuple[int, Piece | Done]]:
        """Pieces of every source, each source closed by a Done.

        Yields
        ------
        (number of the source, event), in the order of ``sources``, whatever the number of workers.
        Never raises for a bad source: that is ``Done.error``.
        """
        yield from self._run((source, settings) for source in sources)

    def crops(self, jobs: Iterable[tuple[Source, Crop]]) -> Iterator[NDArray[np.uint8] | MediaError]:
        """One result for each job, in order: uint8 [T, S, S, 3], or why there is none."""
        pixels: NDArray[np.uint8] | None = None
        for _, event in self._run(jobs):
            if isinstance(event, Piece):
                pixels = event.pixels
            else:
                yield MediaError(event.error) if event.error or pixels is None else pixels
                pixels = None

    def _run(self, jobs: Iterable[tuple[Source, Task]]) -> Iterator[tuple[int, Piece | Done]]:
        self._turn += 1
        if not self._workers:
            for number, (source, task) in enumerate(jobs):
                for event in _inline(source, task):
                    _check_wanted(self._abandoned)
                    yield number, event
            return
        self._drop_busy_workers()
        turn = self._turn
        try:
            for number, event in self._in_order(jobs):
                yield number, event
                if turn != self._turn:
                    raise RuntimeError("this reading was ended: its pool was closed or began another")
        finally:
            if turn == self._turn:
                self._drop_busy_workers()

    def _drop_busy_workers(self) -> None:
        """Replacing a worker is quicker than waiting for jobs whose results are not wanted any more."""
        for slot, worker in enumerate(self._workers):
            if worker is not None and worker.jobs:
                self._drop(slot)

    def _drop(self, slot: int) -> None:
        worker, self._workers[slot] = self._workers[slot], None
        if worker is not None:
            worker.kill()

    def _in_order(self, jobs: Iterable[tuple[Source, Task]]) -> Iterator[tuple[int, Piece | Done]]:
        waiting = iter(jobs)
        # Of each job under way, why it is not sent. Job i belongs to worker i % W: results do not depend on timing.
        sent: deque[str | None] = deque()
        width, head, exhausted = len(self._workers), 0, False
        while True:
            if len(sent) <= width * AHEAD // 2 and not exhausted:
                exhausted = self._send(waiting, sent, head)
            if not sent:
                return
            problem = sent[0]
            events = self._answers(head % width) if problem is None else iter([Done(problem, None)])
            yield from ((head, event) for event in events)
            sent.popleft()
            head += 1

    def _send(self, waiting: Iterator[tuple[Source, Task]], sent: deque[str | None], head: int) -> bool:
        """Hand out jobs until AHEAD for each worker are on their way; True when there are no more."""
        width = len(self._workers)
        jobs = list(islice(waiting, width * AHEAD - len(sent)))
        exhausted = len(jobs) + len(sent) < width * AHEAD
        for source, task in jobs:
            if source.problem is None:
                self._worker((head + len(sent)) % width).jobs.append(encode_job(source, task))
            sent.append(source.problem)
        for worker in self._workers:
            if worker is not None:
                worker.send_jobs()
        return exhausted

    def _worker(self, slot: int) -> _Worker:
        worker = self._workers[slot]
        if worker is None:
            worker = self._workers[slot] = _Worker(self._abandoned)
        return worker

    def _answers(self, slot: int) -> Iterator[Piece | Done]:
        """Events of the oldest job of one worker."""
        worker = self._worker(slot)
        worker.send_jobs()
        try:
            while True:
                event = worker.event(self._timeout)
                if isinstance(event, Done):
                    worker.answered()
                    yield event
                    return
                yield event
        except _Lost as loss:
            self._replace(slot)
            yield Done(str(loss), None)

    def _replace(self, slot: int) -> None:
        """Kill a worker and give its jobs, but for the one that lost it, to a new one."""
        _, *left = self._worker(slot).jobs
        self._drop(slot)
        if left:
            worker = self._worker(slot)
            worker.jobs.extend(left)
            worker.send_jobs()


def _check_wanted(abandoned: threading.Event) -> None:
    if abandoned.is_set():
        raise RuntimeError("this reading was abandoned")


def _inline(source: Source, task: Task) -> Iterator[Piece | Done]:
    if source.problem is not None:
        yield Done(source.problem, None)
        return
    try:
        note = yield from perform(source, task)
    except MediaError as error:
        yield Done(str(error), None)
    else:
        yield Done(None, note)


class _Worker:
    """One worker process, its unanswered jobs, and what it has written that is not read yet."""

    def __init__(self, abandoned: threading.Event) -> None:
        require_pipes()
        self._abandoned = abandoned
        self.jobs: deque[bytes] = deque()
        self._sent = 0
        self._sent_bytes = 0
        self._ready = False
        self._received = b""
        self._at = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "grncli.media.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            # Its own group, to be killed with its ffmpeg, and out of reach of a Ctrl-C in the terminal.
            start_new_session=True,
        )
        self._input, self._output = _pipe(self._process.stdin), _pipe(self._process.stdout)
        os.set_blocking(self._output.fileno(), False)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        widen_pipe(self._output)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send_jobs(self) -> None:
        """Send what has not been sent, as far as it is sure to fit the pipe."""
        batch = []
        while self._sent < len(self.jobs):
            job = self.jobs[self._sent]
            if self._sent and self._sent_bytes + len(job) > _UNANSWERED_BYTES:
                break
            batch.append(job)
            self._sent += 1
            self._sent_bytes += len(job)
        if batch:
            # A worker that has died is noticed where its answer is awaited.
            with contextlib.suppress(BrokenPipeError):
                self._input.write(b"".join(batch))
                self._input.flush()

    def answered(self) -> None:
        """Forget the oldest job."""
        self._sent_bytes -= len(self.jobs.popleft())
        self._sent -= 1

    def event(self, timeout: float) -> Piece | Done:
        """Next event of the oldest job; _Lost if nothing at all came for ``timeout`` seconds."""
        if not self._ready:
            self._await_start(timeout)
        while True:
            head = decode_head(self._line(timeout))
            if "shape" in head:
                return self._piece(head, timeout)
            if "error" in head:
                return Done(head["error"], head["note"])

    def _await_start(self, timeout: float) -> None:
        try:
            # Starting is not the source's doing: it gets more time on a busy machine, and other words.
            self._line(max(timeout, _START_TIMEOUT))
        except _Lost as loss:
            raise GrnError(
                f"a decoding process did not start ({loss}); run `{sys.executable} -m grncli.media.worker "
                "< /dev/null` to see why."
            ) from None
        self._ready = True

    def _piece(self, head: dict[str, Any], timeout: float) -> Piece:
        pixels = np.empty(head["shape"], np.uint8)
        self._fill(pixels.data.cast("B"), timeout)
        return Piece(pixels, head["clip"], head["start"], head["fps"], head["enlarged"])

    def _line(self, timeout: float) -> bytes:
        while (end := self._received.find(b"\n", self._at)) < 0:
            self._wait(timeout)
            more = os.read(self._output.fileno(), 1 << 16)
            if not more:
                raise _Lost(self._death())
            self._received, self._at = self._received[self._at :] + more, 0
        line, self._at = self._received[self._at : end], end + 1
        return line

    def _fill(self, view: memoryview, timeout: float) -> None:
        buffered = self._received[self._at : self._at + len(view)]
        view[: len(buffered)] = buffered
        self._at += len(buffered)
        view = view[len(buffered) :]
        while view:
            self._wait(timeout)
            count = os.readv(self._output.fileno(), [view])
            if not count:
                raise _Lost(self._death())
            view = view[count:]

    def _wait(self, timeout: float) -> None:
        """Return once there is something to read."""
        left = timeout
        deadline = time.monotonic() + timeout
        while True:
            _check_wanted(self._abandoned)
            if self._poll.poll(math.ceil(min(left, _LOOK_SECONDS) * 1000)):
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Lost(f"stalled: nothing was decoded for {timeout:g} s; given up")

    def _death(self) -> str:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "the decoding process closed its output"
        if status < 0:
            return f"the decoding process was killed by signal {-status}"
        return f"the decoding process ended with status {status}"

    def kill(self) -> None:
        """End the process and whatever it started; leaves no zombie."""
        with contextlib.suppress(ProcessLookupError):
            kill_group(self.pid)
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self._output.close()
        self._process.wait()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _environment() -> dict[str, str]:
    """For a worker that finds this very package, and in which numpy starts no threads."""
    root = str(Path(grncli.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
