"""Text files beside media, which hold their captions: ``0001.txt`` beside ``0001.jpg``."""

import os
from dataclasses import dataclass

from grncli.media import archives
from grncli.media.formats import open_plain
from grncli.runtime.errors import MediaError

SUFFIX = "txt"
MAX_BYTES = 64 << 10
"""Bytes of a text file that can be captions; a larger one is something else."""


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """A text file that may belong to media of its stem, not yet opened."""

    name: str
    """What the user sees: the whole path, also that of the archive."""
    path: str
    """File to open: the archive, for a member."""
    member: str | None = None
    offset: int = 0
    size: int = 0
    problem: str | None = None

    @property
    def stem(self) -> str:
        """What it shares with the media it belongs to."""
        return os.path.splitext(self.name)[0]

    def lines(self) -> list[str]:
        """The captions, one a line, blank lines left out; MediaError where there is none, or the file is no text."""
        try:
            content = self._read()
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from None
        if len(content) > MAX_BYTES:
            raise MediaError(f"has more than {MAX_BYTES >> 10} KiB, expected one caption a line")
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise MediaError(f"line {line} is not valid UTF-8, expected one caption a line") from None
        lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
        if not lines:
            raise MediaError("is empty, expected one caption a line")
        return lines

    def _read(self) -> bytes:
        if self.problem is not None:
            raise MediaError(self.problem)
        if self.member is None:
            with open_plain(self.path) as file:
                return file.read(MAX_BYTES + 1)
        if self.size > MAX_BYTES:
            return bytes(MAX_BYTES + 1)
        with archives.open_member(self.path, self.offset, self.size) as file:
            return file.read()
