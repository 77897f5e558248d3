"""A file inside an archive, and what its name may not be."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A file inside an archive; ``offset`` is where its data (tar) or local header (zip) begins."""

    name: str
    offset: int
    size: int
    problem: str | None
    unlisted: bool = False
    """No file but a stretch of the archive that could not be listed; ``problem`` says why."""


def name_problem(name: str) -> str | None:
    """Why a member of this name is not read."""
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or "\0" in name:
        return "has a name that points outside the archive"
    return None
