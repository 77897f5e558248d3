"""The folder that ``grn decode`` fills: which file is which sample's, and which files are its own."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from grncli.decoding.output_form import PNG_FILES, OutputForm
from grncli.media.writing import Frames
from grncli.runtime.errors import UsageError
from grncli.runtime.files import MAX_NAME, temporary_path
from grncli.runtime.folders import ClaimedFolder, FolderMarker, inside, refuse_link
from grncli.runtime.jsonfiles import brief
from grncli.runtime.jsonlines import LineFile, encode_line, read_lines
from grncli.store import BitStore

MANIFEST = "decode.json"
LIST = "decoded.jsonl"
CLASSES = "classes.txt"  # beside shards
GROWING_SHARDS = ".[0-9]*.tar.tmp"  # their `temporary_path`
MAX_NAME_BYTES = 200
DEFAULT_FPS = 16.0  # for clips whose record has none
REMEDY = "choose another DIR"


class OutputFolder:
    """A folder of decoded files, with a list of them and of what they were decoded from; use as a context manager.

    ``decode.json`` says what is decoded, ``decoded.jsonl`` names the file of each sample. One process at a time fills
    it. What identifies the folder is replaced last, so that an interrupted overwrite is still recognised.

    Parameters
    ----------
    dtype : number format that the pixels are computed in
    overwrite : remove the files that were decoded from other bits, or in another way, and nothing else
    selected : what else the folder is for, where another selection of samples is another folder

    Raises
    ------
    UsageError
        If the folder holds something else.
    LockError
        If another process fills it.
    """

    def __init__(
        self,
        folder: Path,
        store: BitStore,
        rounds: int,
        form: OutputForm = PNG_FILES,
        *,
        dtype: str = "float32",
        overwrite: bool,
        selected: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.written = 0
        self.present = 0
        self._form = form
        self._files: dict[str, int] = {}  # the sample of each name
        self._marker = _marker_of(folder)
        manifest = folder_settings(store, rounds, form, dtype=dtype, selected=selected)
        self._marker.require(manifest, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        self._claimed = ClaimedFolder(folder)
        try:
            # Once more: another process may have filled it before it was claimed.
            there = self._marker.require(manifest, overwrite=overwrite)
            if there not in (None, manifest):
                self._clear(shards="shard_size" in (there or {}))
            refuse_link(folder / LIST)
            self._restore(listed_samples(folder))
            if there != manifest:
                self._marker.write(manifest)
            self._list = LineFile(folder / LIST)
        except BaseException:
            self._claimed.close()
            raise

    def __enter__(self) -> "OutputFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self._list.close()
        self._claimed.close()

    def have(self, indices: Sequence[int], records: Sequence[Mapping[str, Any]], *, clips: bool) -> bool:
        """Whether an earlier run has written the files of all these samples, which then count as present."""
        names = (self._name(index, record, clip=clips) for index, record in zip(indices, records, strict=True))
        there = all(name in self._files and inside(self.folder, name).exists() for name in names)
        self.present += len(indices) if there else 0
        return there

    def write(self, index: int, record: dict[str, Any], frames: Frames) -> None:
        """Write the file of one sample unless an earlier run has."""
        clip = len(frames) > 1
        name = self._name(index, record, clip=clip)
        with self._claimed.file(name) as file:
            if file.exists():
                if name not in self._files:
                    raise UsageError(f"{file} was not written by grn decode; {REMEDY}, or move it away")
                self.present += 1
                return
            # Listed first: a file that is not listed is not ours. A listed one may be missing after a kill.
            if name not in self._files:
                self._list.append(encode_line({"index": index, "key": record["key"], "file": name}))
                self._files[name] = index
            self._form.picture.write_media(file, frames, fps_of(record))
        self.written += 1

    def _name(self, index: int, record: Mapping[str, Any], *, clip: bool) -> str:
        name = file_name(record, ".mp4" if clip else self._form.picture.suffix)
        if self._files.get(name, index) == index:
            return name
        # Two sources can only meet here by odd names such as a.png beside a@flip.png.
        return str(PurePosixPath(name).with_stem(f"{PurePosixPath(name).stem}@{index}"))

    def finish(self) -> None:
        """MissingFolderError where the folder was moved away."""
        self._claimed.require_in_place()

    def _restore(self, entries: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Take up what an earlier run has listed, each line with its place."""
        self._files = {entry["file"]: entry["index"] for _, entry in entries}

    def _clear(self, *, shards: bool) -> None:
        names = {entry["file"]: None for _, entry in listed_samples(self.folder)}
        for name in [*names, *([CLASSES] if shards else [])]:
            inside(self.folder, name).unlink(missing_ok=True)
        for growing in self.folder.glob(GROWING_SHARDS):
            growing.unlink()
        (self.folder / LIST).unlink(missing_ok=True)


def _marker_of(folder: Path) -> FolderMarker:
    return FolderMarker(
        folder=folder,
        file=folder / MANIFEST,
        command="grn decode",
        purpose="a folder to decode into",
        remedy=REMEDY,
    )


def folder_settings(
    store: BitStore, rounds: int, form: OutputForm, *, dtype: str, selected: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the marker of a folder says: what is decoded, and how."""
    settings = {"store": store.fingerprint.to_attributes(), "bits": store.digest(), "rounds": rounds}
    settings |= form.settings() | ({} if selected is None else {"selected": selected})
    # Folders that do not say are in float32.
    return settings if dtype == "float32" else {**settings, "dtype": dtype}


def written_samples(folder: Path, settings: Mapping[str, Any], *, overwrite: bool) -> set[int]:
    """Samples that a run with these `folder_settings` finds there; UsageError where it would refuse the folder."""
    if _marker_of(folder).require(settings, overwrite=overwrite) != settings:
        return set()
    found: set[int] = set()
    there: dict[str, bool] = {}
    for _, entry in listed_samples(folder):
        name = entry["file"]
        if name not in there:
            file = inside(folder, name)
            there[name] = file.exists() or ("end" in entry and temporary_path(file).exists())  # a shard that grows
        if there[name]:
            found.add(entry["index"])
    return found


def listed_samples(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of the list, with its place: a file of ours, and the index of a sample that is in it.

    A name that leads out of the folder is refused, as overwriting removes these files.
    """
    file = folder / LIST
    if not file.exists():
        return
    for place, entry in read_lines(file, error=UsageError, remedy=REMEDY):
        name, index = entry.get("file"), entry.get("index")
        if not isinstance(name, str) or not _is_inside(name):
            raise UsageError(f"{place}: field file is {brief(name)}, expected a path inside; {REMEDY}")
        if type(index) is not int or index < 0:
            raise UsageError(f"{place}: field index is {brief(index)}, expected a number; {REMEDY}")
        yield place, entry


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


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
    folders = [_shortened(part) if len(os.fsencode(part)) > MAX_NAME else part for part in folders]
    return "/".join([*folders, _shortened(name) + suffix])


def sample_file(record: Mapping[str, Any], *, clip: bool) -> str:
    """Path of a sample's picture or clip below its folder."""
    return file_name(record, ".mp4" if clip else ".png")


def fps_of(record: Mapping[str, Any]) -> float:
    """Frame rate of a sample that is a clip."""
    return float(record.get("fps") or DEFAULT_FPS)


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
