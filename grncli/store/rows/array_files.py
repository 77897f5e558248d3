"""The arrays of a part being written: raw chunk files filled in place, their Zarr documents, the way back.

zarr-python rewrites a chunk on every partial write; in a raw chunk new rows are written at their offset.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from grncli.runtime.files import replace_file, sync_directory, write_all
from grncli.runtime.folders import make_folder, refuse_link
from grncli.runtime.system import most_open_files, open_file
from grncli.store.rows.record import GroupRecord, PartRecord
from grncli.store.rows.schema import METADATA, ArrayLayout, Schema, group_document, unreadable
from grncli.store.rows.stored import StoredChunk

Result = TypeVar("Result")

# A native-size folder has hundreds of grids, each with several arrays; stay far below the usual 1024 that a process
# may open, and below any other limit.
_OPEN_FILES = 128
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
# Another file system, one without links, a file of another user's, or one that has as many links as it can.
_UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class UnsyncedFiles:
    """Files and directories of a part written since the last commit, kept open until they are on disk."""

    def __init__(self, part: Path, before_opening: Callable[[], None]) -> None:
        self.part = part
        self._before_opening = before_opening
        self._limit = max(4, min(_OPEN_FILES, most_open_files(4 * _OPEN_FILES) // 4))
        self._fds: dict[Path, int] = {}
        self._directories: dict[Path, None] = {}

    def open(self, path: Path, *, create: bool = True) -> int:
        """Descriptor of the file at ``path`` for writing; with ``create`` it and its folders are made if need be."""
        fd = self._fds.get(path)
        if fd is None:
            if len(self._fds) >= self._limit:
                self._sync_files()
            self._before_opening()
            if create:
                self.make_directory(path.parent)
            fd = self._fds[path] = self._open(path, os.O_CREAT if create else 0)
            self._directories[path.parent] = None
        return fd

    def _open(self, path: Path, creating: int) -> int:
        return self._with_fewer_open(lambda: open_file(path, os.O_RDWR | creating, follow=False))

    def _with_fewer_open(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives that opens a file, tried again where other parts of the process left it too few."""
        try:
            return work()
        except OSError as error:
            if error.errno not in _TOO_MANY or not self._fds:
                raise
        self._sync_files()
        return work()

    def replace(self, path: Path, content: bytes) -> None:
        """Replace a file whole. Only what is read after the next ``sync`` may depend on it."""
        self._with_fewer_open(lambda: replace_file(path, content, sync=False))
        replaced = self._fds.pop(path, None)
        if replaced is not None:
            os.close(replaced)
        self.open(path, create=False)

    def link(self, source: Path, path: Path) -> bool:
        """Let ``path`` be the same file as ``source``, to be read only; False where the file system cannot do that."""
        self._before_opening()
        self.make_directory(path.parent)
        try:
            os.link(source.resolve(), path)
        except OSError as error:
            if error.errno not in _UNLINKABLE:
                raise
            return False
        self._directories[path.parent] = None
        return True

    def make_directory(self, path: Path) -> None:
        """Create a directory below the part, and those between; OSError where a link is in its place."""
        if path == self.part:
            return
        if path.parent != self.part:
            self.make_directory(path.parent)
        if make_folder(path):
            self._directories[path.parent] = None

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        self._sync_files()
        for directory in self._directories:
            sync_directory(directory)
        self._directories.clear()

    def close(self) -> None:
        """Close without waiting for the disk."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def _sync_files(self) -> None:
        for fd in self._fds.values():
            os.fsync(fd)
        self.close()


class PartArrays(UnsyncedFiles):
    """Arrays of every group in one part.

    Parameters
    ----------
    before_opening : called before a file is opened for writing; raises where the part is no longer in its place
    """

    def __init__(
        self, part: Path, schema: Schema, columns: Mapping[str, str], before_opening: Callable[[], None]
    ) -> None:
        super().__init__(part, before_opening)
        self.schema = schema
        self._columns = columns
        self._groups: dict[str, list[GrowingArray]] = {}

    def restore(self, record: PartRecord) -> None:
        """Take every file back to what the record says, whatever a killed process left."""
        for entry in sorted(self.part.iterdir()):
            if self.schema.group_order(entry.name) is not None and entry.name not in record.groups:
                refuse_link(entry)
                shutil.rmtree(entry)
        self.replace(self.part / METADATA, group_document())
        for group, committed in record.groups.items():
            for array in self.group(group):
                array.restore(committed)
        self.write_documents(record.groups)
        self.sync()

    def group(self, name: str) -> list["GrowingArray"]:
        """Arrays of one group; its folder is created on first use."""
        if name not in self._groups:
            directory = self.part / name
            self._before_opening()
            self.make_directory(directory)
            self.replace(directory / METADATA, group_document())
            layouts = self.schema.layouts(name, self._columns)
            self._groups[name] = [GrowingArray(directory / layout.name, layout, self) for layout in layouts]
        return self._groups[name]

    def rows(self, group: str) -> int | None:
        """Rows of a group, committed or not; None where it was not written yet."""
        return self._groups[group][0].rows if group in self._groups else None

    def records(self) -> dict[str, GroupRecord]:
        """What a commit would say about each group now."""
        return {
            name: GroupRecord(
                self._groups[name][0].rows, {array.layout.name: array.checksums() for array in self._groups[name]}
            )
            for name in self.schema.in_order(self._groups)
        }

    def write_documents(self, groups: Iterable[str]) -> None:
        """Bring the shapes in the Zarr documents up to the rows written, without waiting for the disk.

        No reader of ours needs them, and opening the part writes them anew.
        """
        for name in groups:
            for array in self._groups[name]:
                replace_file(array.directory / METADATA, array.layout.document(array.rows), sync=False)

    def settle(self) -> None:
        """Give small arrays and all documents their final form, for a part that is complete."""
        for arrays in self._groups.values():
            for array in arrays:
                array.settle()
        self.sync()


class GrowingArray:
    """One array being written. ``crcs`` are those of its full chunks, ``crc`` of the rows after them."""

    def __init__(self, directory: Path, layout: ArrayLayout, files: "UnsyncedFiles") -> None:
        self.directory = directory
        self.layout = layout
        self.rows = 0
        self.crcs: list[int] = []
        self.crc = 0
        self._files = files

    def append(self, block: NDArray[Any] | StoredChunk) -> None:
        """Write rows after the last one, into as many chunks as they take."""
        layout = self.layout
        if isinstance(block, StoredChunk):
            if self._share(block):
                return
            block = block.read()
        data = np.ascontiguousarray(block, layout.dtype).reshape(-1).view(np.uint8)
        while data.size:
            chunk, row = divmod(self.rows, layout.chunk_rows)
            piece = data[: (layout.chunk_rows - row) * layout.row_bytes]
            fd = self._chunk_file(chunk, row)
            write_all(fd, piece.data, row * layout.row_bytes)
            self.crc = google_crc32c.extend(self.crc, piece)
            self.rows += piece.size // layout.row_bytes
            if self.rows % layout.chunk_rows == 0:
                self.crcs.append(self.crc)
                self.crc = 0
            data = data[piece.size :]

    def _share(self, block: StoredChunk) -> bool:
        """Make the file of a full chunk the next one here too, where it can be; such a file is never written again."""
        chunk, row = divmod(self.rows, self.layout.chunk_rows)
        if row or block.array.layout.chunk_bytes != self.layout.chunk_bytes:
            return False
        block.require_file()
        if not self._files.link(block.path, self.directory / self.layout.chunk_name(chunk)):
            return False
        self.rows += len(block)
        self.crcs.append(block.checksum)
        return True

    def checksums(self) -> list[int]:
        """Of each chunk's rows so far."""
        return [*self.crcs, *([self.crc] if self.rows % self.layout.chunk_rows else [])]

    def restore(self, committed: GroupRecord) -> None:
        """Go back to the committed rows in files of full chunk size: no later chunk, zeros after the rows."""
        layout, rows = self.layout, committed.rows
        self.rows, self.crcs = rows, list(committed.crc32c.get(layout.name, []))
        self.crc = self.crcs.pop() if rows % layout.chunk_rows else 0
        self._files.make_directory(self.directory)
        for entry in sorted(self.directory.iterdir()):
            chunk = layout.parse_chunk(entry.name)
            if chunk is not None and chunk >= layout.chunk_count(rows):
                entry.unlink()
        last = layout.chunk_count(rows) - 1
        if rows % layout.chunk_rows:
            self._cut(last, rows - last * layout.chunk_rows)
        elif rows:
            self._require_full(last)

    def settle(self) -> None:
        """Cut an array smaller than one chunk to its rows, so that small grids copy as small files."""
        layout = self.layout
        if 0 < self.rows < layout.chunk_rows:
            os.ftruncate(self._chunk_file(0, self.rows), self.rows * layout.row_bytes)
        self._files.replace(self.directory / METADATA, layout.document(self.rows, complete=True))

    def _chunk_file(self, chunk: int, rows: int) -> int:
        """Descriptor of a chunk file of full size that has ``rows`` rows; what was not written yet is a hole."""
        path, keep = self.directory / self.layout.chunk_name(chunk), rows * self.layout.row_bytes
        try:
            fd = self._files.open(path, create=not rows)
        except FileNotFoundError:
            raise unreadable(path, "is missing", f"at least {keep}") from None
        size = os.fstat(fd).st_size
        if size < keep:
            raise unreadable(path, f"has {size} bytes", f"at least {keep}")
        if size < self.layout.chunk_bytes:
            os.ftruncate(fd, self.layout.chunk_bytes)
        return fd

    def _require_full(self, chunk: int) -> None:
        """Look at the file of a full chunk without opening it: it may be another store's as well."""
        path, keep = self.directory / self.layout.chunk_name(chunk), self.layout.chunk_bytes
        refuse_link(path)
        if not path.exists():
            raise unreadable(path, "is missing", f"at least {keep}")
        if (size := path.stat().st_size) < keep:
            raise unreadable(path, f"has {size} bytes", f"at least {keep}")

    def _cut(self, chunk: int, rows: int) -> None:
        fd = self._chunk_file(chunk, rows)
        os.ftruncate(fd, rows * self.layout.row_bytes)
        os.ftruncate(fd, self.layout.chunk_bytes)
