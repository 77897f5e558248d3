"""Files that are either wholly there or not at all, also after a power cut."""

import os
from pathlib import Path

from grncli.runtime.files import sync_directory

TEMPORARY_SUFFIX = ".tmp"


def temporary_path(path: Path) -> Path:
    """Where ``path`` is prepared: one name, so that the next run replaces what a kill left."""
    return path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")


def write_all(fd: int, data: memoryview, offset: int) -> None:
    """Write every byte at ``offset``; the system may take less than it was given."""
    while data:
        written = os.pwrite(fd, data, offset)
        data = data[written:]
        offset += written


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Put ``content`` at ``path`` in one step; readers see the old file or the new one.

    ``sync=False`` leaves out waiting for the disk, for what can be rebuilt after a power cut.
    """
    temporary = temporary_path(path)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
    try:
        write_all(fd, memoryview(content), 0)
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(temporary, path)
    if sync:
        sync_directory(path.parent)
