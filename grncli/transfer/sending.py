"""Sending files by threads: only what is missing or differs, each looked at again once it is there."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.remote_objects import ObjectState
from grncli.runtime.stopping import Stopped
from grncli.store.rows.byte_source import Committed, reading
from grncli.transfer.contents import Content, checksum_of
from grncli.transfer.destinations import Destination

THREADS = 16
_TOGETHER = 64  # files between two looks at whether to stop

Known = Mapping[str, Committed]
"""Files that a record at the destination counts, with the bytes that count."""


class Sender:
    """Brings files to a destination, and counts them.

    Parameters
    ----------
    total : bytes of all that is going to be sent, for the progress
    begin : called once, before the first file is written or removed

    Attributes
    ----------
    sent, sent_bytes : files that were missing or differed
    present : files that were there
    """

    def __init__(
        self, destination: Destination, monitor: Monitor, total: int, begin: Callable[[], object] = lambda: None
    ) -> None:
        self.sent = self.sent_bytes = self.present = 0
        self._destination = destination
        self._monitor = monitor
        self._total = total
        self._done = 0
        self._begin = begin
        self._begun = False

    def send(
        self,
        contents: Sequence[Content],
        there: MutableMapping[str, ObjectState],
        known: Known | None = None,
        mark: str = "",
    ) -> None:
        """Bring files to the destination, in any order; return once all are there.

        Parameters
        ----------
        there : what is at the destination
        known : files of these that count there already: where one is there with its size, it is not read again
        mark : a file there that says these are whole: taken away before any of them is written

        Raises
        ------
        StoreError
            If the bytes of a file, or of its copy, are not what they should be.
        Stopped
            If the monitor's stop asks for it; the files sent so far are whole.
        """
        for first in range(0, len(contents), _TOGETHER):
            some = contents[first : first + _TOGETHER]
            with ThreadPoolExecutor(THREADS) as pool:
                present = list(pool.map(partial(self._is_there, there=there, known=known or {}), some))
            lacking = [content for content, is_there in zip(some, present, strict=True) if not is_there]
            self.present += len(some) - len(lacking)
            self._advance(sum(content.size for content in some) - sum(content.size for content in lacking))
            if lacking:
                self._change()
                if there.pop(mark, None) is not None:
                    self._destination.remove(mark)
            with ThreadPoolExecutor(THREADS) as pool:
                for content in pool.map(self._put, lacking):
                    self.sent += 1
                    self.sent_bytes += content.size
                    self._advance(content.size)
            if (reason := self._monitor.stop_reason) is not None:
                raise Stopped(f"{reason}: stopped after {self.sent} files were copied")

    def remove(self, names: Sequence[str]) -> None:
        """Take files away from the destination."""
        if names:
            self._change()
        for name in names:
            self._destination.remove(name)

    def _change(self) -> None:
        if not self._begun:
            self._begun = True
            self._begin()

    def _advance(self, nbytes: int) -> None:
        self._done += nbytes
        self._monitor.progress(min(self._done, self._total), self._total, "")

    def _is_there(self, content: Content, there: Mapping[str, ObjectState], known: Known) -> bool:
        state = there.get(content.name)
        if state is None or state.size != content.size:
            return False
        return known.get(content.name) == content.committed or self._is_same(content, state)

    def _is_same(self, content: Content, state: ObjectState) -> bool:
        """Whether a file at the destination has the bytes, by what its server says or by reading it."""
        if state.size != content.size:
            return False
        if state.md5 is not None and state.md5 == content.md5():
            return True
        with reading(self._destination.files, content.name) as file:
            return checksum_of(file, content.committed.size) == content.committed

    def _put(self, content: Content) -> Content:
        self._destination.write(content)
        state = self._destination.state(content.name)
        if state is None or not self._is_same(content, state):
            where = self._destination.files.where(content.name)
            raise StoreError(f"{where}: is not what was sent there; run the same command again.")
        return content
