"""What is copied: files with their checksums, whose bytes are compared with them on the way."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import google_crc32c

from grncli.runtime.errors import StoreError
from grncli.store.rows.byte_source import ByteSource, Committed, read_from, reading
from grncli.store.rows.schema import changed

PIECE = 8 << 20


@dataclass(frozen=True)
class Content:
    """A file to be there after a copy.

    Parameters
    ----------
    name : below the root, such as ``part-00000/commit.json``
    committed : the bytes that count
    open : gives them, from the first one on
    padding : zeros behind them
    where : what messages call the file that is copied
    """

    name: str
    committed: Committed
    open: Callable[[], BinaryIO]
    where: str
    padding: int = 0

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.committed.size + self.padding

    def pieces(self) -> Iterator[bytes]:
        """Its bytes; StoreError where they cannot be read or, at the last piece, are not those that were committed."""
        left, crc = self.committed.size, 0
        with read_from(self.open, self.where) as file:
            while left and (piece := file.read(min(left, PIECE))):
                left, crc = left - len(piece), google_crc32c.extend(crc, piece)
                yield piece
        if left:
            raise StoreError(f"{self.where} ends {left} bytes early; restore it from a copy.")
        if crc != self.committed.crc32c:
            raise StoreError(changed(self.where, crc, self.committed.crc32c))
        for first in range(0, self.padding, PIECE):
            yield bytes(min(PIECE, self.padding - first))

    def md5(self) -> str:
        """MD5 of all its bytes, in hexadecimal."""
        total = hashlib.md5(usedforsecurity=False)
        for piece in self.pieces():
            total.update(piece)
        return total.hexdigest()


def checksum_of(file: BinaryIO, most: int | None = None) -> Committed:
    """How many bytes there are up to the end or to ``most``, and their crc32c."""
    size, crc = 0, 0
    while piece := file.read(PIECE if most is None else min(PIECE, most - size)):
        size, crc = size + len(piece), google_crc32c.extend(crc, piece)
    return Committed(size, crc)


def uncounted(source: ByteSource, name: str) -> Content:
    """A file that no record counts, as it is now; StoreError where it cannot be read."""
    with reading(source, name) as file:
        return Content(name, checksum_of(file), lambda: source.stream(name), source.where(name))
