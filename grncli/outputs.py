"""The folder that ``grn decode`` fills: which file is which sample's, and which files are its own."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.errors import UsageError
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.files import whole_file
from grncli.store import BitStore

MANIFEST = "decode.json"
LIST = "decoded.jsonl"
MAX_NAME_BYTES = 200
DEFAULT_FPS = 16.0  # for clips whose record has none

Frames = NDArray[np.uint8]


class OutputFolder:
    """A folder of decoded files that knows which files are its own, and of which bits; use as a context manager.

    ``decode.json`` says what is decoded, ``decoded.jsonl`` names the file of each sample.

    Parameters
    ----------
    overwrite : remove the files that were decoded from other bits or rounds, and nothing else

    Raises
    ------
    UsageError
        If the folder holds something else.
    """

    def __init__(self, folder: Path, store: BitStore, rounds: int, *, overwrite: bool) -> None:
        self.folder = folder
        self.written = 0
        self.present = 0
        manifest = {"store": store.fingerprint.to_attributes(), "bits": store.digest(), "rounds": rounds}
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, expected a folder to decode into")
        found = read_manifest(folder)
        if found is None and folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} holds files that grn decode did not write; choose another DIR")
        if found is not None and found != manifest:
            if not overwrite:
                raise UsageError(f"{folder} was decoded from other bits or rounds; choose another DIR, or --overwrite")
            for name in self._listed():
                (folder / name).unlink(missing_ok=True)
            (folder / LIST).unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        self._files = self._listed()
        self._log = (folder / LIST).open("a", encoding="utf-8")

    def __enter__(self) -> "OutputFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()

    def write(self, index: int, record: dict[str, Any], frames: Frames) -> None:
        """Write the file of one sample unless an earlier run has."""
        clip = len(frames) > 1
        name = file_name(record, ".mp4" if clip else ".png")
        if self._files.get(name, index) != index:
            # Two sources can only meet here by odd names such as a.png beside a@flip.png.
            name = str(PurePosixPath(name).with_stem(f"{PurePosixPath(name).stem}@{index}"))
        file = self.folder / name
        if name in self._files and file.exists():
            self.present += 1
            return
        if file.exists():
            raise UsageError(f"{file} was not written by grn decode; choose another DIR, or move it away")
        file.parent.mkdir(parents=True, exist_ok=True)
        # Listed first: a file that is not listed is somebody else's.
        self._log.write(json.dumps({"index": index, "key": record["key"], "file": name}, ensure_ascii=False) + "\n")
        self._log.flush()
        self._files[name] = index
        if clip:
            write_mp4(file, frames, float(record.get("fps") or DEFAULT_FPS))
        else:
            write_png(file, frames[0])
        self.written += 1

    def _listed(self) -> dict[str, int]:
        """Index of the sample in each file of ours."""
        file = self.folder / LIST
        if not file.is_file():
            return {}
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):  # half a line, of a killed run
            lines.pop()
            with whole_file(file) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
        return dict(map(self._parse, lines))

    def _parse(self, line: str) -> tuple[str, int]:
        """File and index of one line; refused where it leads out of the folder, as overwriting removes such files."""
        try:
            entry = json.loads(line)
            name, index = str(entry["file"]), int(entry["index"])
        except (ValueError, KeyError, TypeError):
            name, index = "/", 0
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UsageError(f"{self.folder / LIST} is damaged: found {line.strip()[:80]!r}; choose another DIR")
        return name, index


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What ``decode.json`` says, None where there is none; UsageError when it is damaged."""
    file = folder / MANIFEST
    if not file.is_file():
        return None
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, OSError) as error:
        raise UsageError(f"{file} cannot be read ({error}); choose another DIR, or remove this one") from None


def file_name(record: Mapping[str, Any], suffix: str) -> str:
    """Path below the output folder for a sample: its key, kept inside the folder, with ``suffix`` in the end.

    The suffix of the source stays where it is another one (``1.jpg`` becomes ``1.jpg.png``); windows and mirrored
    copies are marked (``v@0003.mp4``, ``x@flip.png``).
    """
    inside = [{"..": "_up", "/": "_root"}.get(part, part) for part in PurePosixPath(source_key(record)).parts]
    *folders, name = inside or ["_"]
    name = name.removesuffix(suffix)
    name += f"@{record['clip']:04d}" if "clip" in record else ""
    name += "@flip" if record.get("flip") else ""
    return "/".join([*folders, _shortened(name) + suffix])


def source_key(record: Mapping[str, Any]) -> str:
    """The key of a sample without the marks of its window and mirroring: its source."""
    key = str(record["key"])
    if record.get("flip"):
        key = key.removesuffix("#flip")
    return key.removesuffix(f"#{record['clip']}") if "clip" in record else key


def _shortened(name: str) -> str:
    """A name that a file system takes together with a suffix; the hash keeps long ones apart."""
    if len(os.fsencode(name)) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    return os.fsencode(name)[: MAX_NAME_BYTES - 16].decode("utf-8", "ignore") + f"~{digest}"
