"""Everything that ``grn doctor`` looks at, what of it is wrong, and what of it is slow."""

import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from grncli import __version__
from grncli.machine.cached_weights import CachedWeights, cached_weights
from grncli.machine.computing_devices import DeviceState, ProcessorState, devices, processor, unused_gpu
from grncli.machine.packages import PackageState, package_problems, package_states
from grncli.machine.system_limits import DiskState, MemoryState, disk, memory
from grncli.media.clip_decoding import ffmpeg
from grncli.runtime.errors import LockError, MediaError
from grncli.runtime.lock import PathLock
from grncli.runtime.text import one_line

FFMPEG_SECONDS = 30


@dataclass(frozen=True)
class Examination:
    """What this machine has.

    Attributes
    ----------
    versions : of the program, Python and the system
    ffmpeg : its path and version; both None where it does not run
    unused_gpu : why a GPU that is here cannot be used, None for no such GPU
    folder : where stores and runs are to lie
    cache, temporary : where weights are fetched to, and where temporary files lie
    checksums : ``c``, or ``python`` where google-crc32c has no compiled part
    problems : what does not work, a sentence each
    """

    versions: dict[str, str]
    packages: list[PackageState]
    processor: ProcessorState
    devices: list[DeviceState]
    unused_gpu: str | None
    memory: MemoryState
    folder: DiskState
    cache: DiskState
    temporary: DiskState
    ffmpeg: dict[str, str | None]
    weights: list[CachedWeights]
    checksums: str
    problems: list[str]


def examine(folder: Path, cache: Path, environment: Mapping[str, str], *, verify: bool = False) -> Examination:
    """Look at this machine; a file is made in ``folder`` for a moment, to see whether it can be locked.

    Parameters
    ----------
    folder : where stores and runs are to lie
    cache : folder of downloaded weights
    environment : variables of this process
    verify : read the weights that are here and compare them with their published SHA-256
    """
    import google_crc32c

    packages, weights, found = package_states(), cached_weights(cache, verify=verify), devices()
    tool, tool_problem = _ffmpeg()
    return Examination(
        versions={
            "grn": __version__,
            "python": platform.python_version(),
            "interpreter": sys.executable,
            "system": platform.platform(),
        },
        packages=packages,
        processor=processor(environment),
        devices=found,
        unused_gpu=unused_gpu(environment),
        memory=memory(),
        folder=disk(folder),
        cache=disk(cache),
        temporary=disk(Path(tempfile.gettempdir())),
        ffmpeg=tool,
        weights=weights,
        checksums=google_crc32c.implementation,
        problems=[
            *package_problems(packages),
            *([tool_problem] if tool_problem else []),
            *_folder_problems(folder),
            *(
                f"{device.name}: cannot be used ({device.fault}); take another --device, or see what else uses it"
                for device in found
                if device.fault
            ),
            *(
                f"{file}: is not the published file; remove it, and fetch it again"
                for w in weights
                for file in w.damaged
            ),
        ],
    )


def _ffmpeg() -> tuple[dict[str, str | None], str | None]:
    """Path and version, and what is wrong with it."""
    try:
        path = ffmpeg()
        asked = subprocess.run([path, "-version"], capture_output=True, timeout=FFMPEG_SECONDS, check=True)
    except MediaError as error:
        return {"path": None, "version": None}, str(error)
    except (OSError, subprocess.SubprocessError) as error:
        problem = f"{path}: does not run ({one_line(error)}), so no clip can be read; reinstall imageio-ffmpeg"
        return {"path": path, "version": None}, problem
    words = asked.stdout.decode("utf-8", "replace").split()
    return {"path": path, "version": words[2] if len(words) > 2 else "unknown"}, None


def _folder_problems(folder: Path) -> list[str]:
    """Whether stores and runs can be written there: every writer locks a file."""
    if not folder.is_dir():
        return [f"{folder}: is no folder, expected the one where stores and runs are to lie"]
    try:
        with tempfile.TemporaryDirectory(prefix=".grn-doctor-", dir=folder) as place:
            with PathLock(Path(place, "lock")):
                return []
    except LockError as error:
        return [str(error)]
    except OSError as error:
        return [f"{folder}: cannot be written to ({one_line(error)}); choose another folder for stores and runs"]
