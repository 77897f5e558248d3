"""What the system lets this process have: cores, memory and disk, also inside a container or a batch job."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grncli.runtime.system import memory_bytes

NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "gpfs", "beegfs", "ceph", "afs", "9p", "fuse.sshfs", "fuse.gcs")
_OCTAL = re.compile(r"\\(\d{3})")  # of spaces and the like in /proc/mounts


@dataclass(frozen=True)
class MemoryState:
    """Bytes of memory.

    Attributes
    ----------
    total : of the machine, None where the system does not tell
    available : that a new process can have without swapping, also within the limit of its container or batch job
    limit : that a container or batch job may have, what it uses already included; None for no limit
    """

    total: int | None
    available: int | None
    limit: int | None


@dataclass(frozen=True)
class DiskState:
    """Where files lie; sizes in bytes.

    Attributes
    ----------
    file_system : its kind, such as ext4 or nfs4; None where the system does not tell
    """

    path: str
    total: int
    free: int
    file_system: str | None

    @property
    def is_remote(self) -> bool:
        """Whether other machines keep the files."""
        return (self.file_system or "").startswith(NETWORK_FILE_SYSTEMS)


def core_quota(system: Path = Path("/")) -> float | None:
    """Cores that a container or batch job may keep busy, None for no limit; ``system`` is where /sys and /proc lie."""
    quotas = []
    for folder in _control_groups(system):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.strip().isdecimal():
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory(system: Path = Path("/")) -> MemoryState:
    """Memory of the machine, and of it that which this process may have."""
    lines = dict(line.partition(":")[::2] for line in _text(system / "proc/meminfo").splitlines())
    known = {name: int(text.split()[0]) * 1024 for name, text in lines.items() if text.strip()[:1].isdecimal()}
    total = known.get("MemTotal") or memory_bytes()
    limits = {
        folder: int(text) for folder in _control_groups(system) if (text := _text(folder / "memory.max")).isdecimal()
    }
    left = [max(0, limit - _memory_in_use(folder)) for folder, limit in limits.items()]
    left += [known["MemAvailable"]] if "MemAvailable" in known else []
    return MemoryState(total, min(left, default=None), min(limits.values(), default=None))


def _memory_in_use(group: Path) -> int:
    """Bytes that the processes of a group use, without the copies of files that the system gives up when it must."""
    used = _text(group / "memory.current")
    kept = dict(line.split()[:2] for line in _text(group / "memory.stat").splitlines() if len(line.split()) > 1)
    return max(0, int(used) - int(kept.get("inactive_file", 0))) if used.isdecimal() else 0


def disk(path: Path, system: Path = Path("/")) -> DiskState:
    """The disk below ``path``, or below the nearest folder above it that is there."""
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    usage = shutil.disk_usage(place)
    return DiskState(str(path.absolute()), usage.total, usage.free, _file_system(place.resolve(), system))


def _file_system(place: Path, system: Path) -> str | None:
    mounts = [line.split() for line in _text(system / "proc/mounts").splitlines()]
    above = {str(place), *map(str, place.parents)}
    kinds = {_OCTAL.sub(lambda code: chr(int(code[1], 8)), mount[1]): mount[2] for mount in mounts if len(mount) > 2}
    return kinds.get(max(above & kinds.keys(), key=len, default=""))


def _control_groups(system: Path) -> Iterator[Path]:
    """Folders of the limits of this process (version 2 of Linux's control groups), innermost first."""
    own = next((line[3:] for line in _text(system / "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    top = system / "sys/fs/cgroup"
    folder = top / own.lstrip("/")
    yield from (group for group in (folder, *folder.parents) if group.is_relative_to(top))


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8", "surrogateescape").strip()  # names of mounts may be any bytes
    except OSError:
        return ""
