"""Files of the same key as a picture or clip: ``0001.txt``, ``0001.json`` and ``0001.cls`` beside ``0001.jpg``."""

import os
from dataclasses import dataclass

from grncli.media import archives
from grncli.media.formats import open_plain, suffix_of
from grncli.runtime.errors import MediaError
from grncli.runtime.text import printable

SUFFIXES = ("txt", "json", "cls")
"""Captions, what is known of a sample, and its class."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A file that may belong to media of its key, not yet opened."""

    path: str
    """File to open: the archive, for a member."""
    member: str | None = None
    offset: int = 0
    size: int = 0
    """Where the member lies, as a `Source` has it."""
    problem: str | None = None
    """Why it can never be read."""

    @property
    def name(self) -> str:
        """What the user sees: the whole path, also that of the archive."""
        return printable(self.path if self.member is None else f"{self.path}/{self.member}")

    @property
    def suffix(self) -> str:
        """Suffix in lower case, without the dot: one of `SUFFIXES`."""
        return suffix_of(self.member or self.path)

    @property
    def stem(self) -> str:
        """What it shares with the media it belongs to."""
        return os.path.splitext(self.name)[0]

    def read(self, limit: int) -> bytes:
        """Its content, of a larger file at least ``limit`` + 1 bytes; MediaError where it cannot be read."""
        if self.problem is not None:
            raise MediaError(self.problem)
        if self.size > limit:
            return bytes(limit + 1)
        try:
            if self.member is None:
                with open_plain(self.path) as file:
                    return file.read(limit + 1)
            with archives.open_member(self.path, self.offset, self.size) as file:
                return file.read()
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from None


def webdataset_key(path: str) -> str:
    """``path`` up to the first dot of its base name, which may begin with one."""
    dot = path.find(".", path.rfind("/") + 2)
    return path if dot < 0 else path[:dot]
