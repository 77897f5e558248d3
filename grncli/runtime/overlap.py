"""Letting stages of a pipeline run at the same time, in order, with bounded queues between them."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_END = object()
_LOOK_SECONDS = 0.1
_THREADS = 16  # that wait for a file system at the same time


def in_threads(call: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """What a call gives for each item, in order, for calls that mostly wait: a network file system takes milliseconds.

    An exception of a call is raised in its place; no further calls are begun then.
    """
    if len(items) < 2:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(min(_THREADS, len(items))) as pool:
        yield from pool.map(call, items)


class Prefetcher(Generic[T]):
    """Iterate over ``items`` while a thread draws the next ``depth`` of them.

    Use as a context manager: leaving the block ends the thread and closes ``items``, however much of it was used.
    An exception in ``items`` reaches the consumer after the items before it.

    Parameters
    ----------
    items : closed by the thread that draws them
    depth : how many may wait
    stop_when : asked about ten times a second while no item is ready, with the seconds waited so far; True ends the
        iteration as if ``items`` were at their end
    abandon : called on leaving while ``items`` are still being drawn, to end a wait in them
    """

    def __init__(
        self,
        items: Iterable[T],
        depth: int = 2,
        *,
        stop_when: Callable[[float], bool] = lambda waited: False,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self._items = items
        self._stop_when = stop_when
        self._abandon = abandon
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)

    def __enter__(self) -> Iterator[T]:
        self._thread.start()
        return self._drain()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._abandon()
        # The thread may wait for room in the queue; it looks at the flag after each item it gets rid of.
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _fill(self) -> None:
        try:
            iterator = iter(self._items)
            try:
                for item in iterator:
                    self._queue.put(item)
                    if self._stopped.is_set():
                        break
            finally:
                close = getattr(iterator, "close", None)
                if close is not None:
                    close()
            self._queue.put(_END)
        except BaseException as error:
            self._queue.put(_Failure(error))

    def _drain(self) -> Iterator[T]:
        while (item := self._next()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item  # type: ignore[misc]

    def _next(self) -> object:
        began = time.monotonic()
        while True:
            try:
                return self._queue.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._stop_when(time.monotonic() - began):
                    return _END


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class BackgroundWriter:
    """Calls carried out one after the other on a thread of their own, at most ``depth`` of them waiting.

    An exception of a call is raised by a later `submit` or by `wait`.
    """

    def __init__(self, depth: int = 4) -> None:
        self._depth = depth
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[Future[object]] = deque()

    def submit(self, call: Callable[[], object]) -> None:
        """Queue a call; waits for the oldest one while too many are queued."""
        while self._waiting and (len(self._waiting) >= self._depth or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(call))

    def wait(self) -> None:
        """Return once every call is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._waiting:
            future.cancel()
        self._pool.shutdown(wait=True)
