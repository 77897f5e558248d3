"""The folder that ``grn decode --format webdataset`` fills: tar files of samples, the files of one key side by side.

A shard grows under a hidden name and is renamed when it is full. The list names where each sample ends in it, once it
is there: an interrupted run resumes behind the last one.
"""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.decoding.output_form import OutputForm
from grncli.decoding.outputs import CLASSES, REMEDY, OutputFolder, file_name, fps_of, source_key
from grncli.media.formats import kind_of_suffix
from grncli.media.writing import Frames, write_mp4
from grncli.runtime.errors import UsageError
from grncli.runtime.files import replace_file, temporary_path
from grncli.runtime.jsonfiles import brief
from grncli.runtime.jsonlines import LineFile, encode_line
from grncli.store import BitStore
from grncli.store.captions import read_captions

_END = 2 * tarfile.BLOCKSIZE  # bytes of zeros behind the last member


class ShardFolder(OutputFolder):
    """A folder of tar files; use as a context manager.

    Of each sample a shard holds, under one key, the picture or clip; ``.cls``, the number of its class, where it has
    one; ``.txt``, a caption a line, where it has some; ``.json``, its line in the store and the name of its class.
    ``classes.txt`` beside the shards names the classes, in their order, once all are there.

    Parameters
    ----------
    indices : of the samples that are decoded, in their order
    overwrite : remove the files that were decoded from other bits, or in another way, and nothing else

    Raises
    ------
    UsageError, LockError
        As `OutputFolder`.
    """

    def __init__(
        self,
        folder: Path,
        store: BitStore,
        rounds: int,
        form: OutputForm,
        indices: range,
        *,
        dtype: str = "float32",
        overwrite: bool,
    ) -> None:
        assert form.shard_size is not None
        self._size = form.shard_size
        self._indices = indices
        self._store = store
        self._labels, self._captions = _labels(store), read_captions(store)
        self._ends: dict[int, list[int]] = {}  # where each sample of a shard ends in it
        self._file: tuple[int, LineFile] | None = None  # the shard that is being written
        super().__init__(folder, store, rounds, form, dtype=dtype, overwrite=overwrite, selected=selection(indices))

    def have(self, indices: Sequence[int], records: Sequence[Mapping[str, Any]], *, clips: bool) -> bool:
        """Whether an earlier run has written all these samples, which then count as present."""
        there = all(self._is_written(index) for index in indices)
        self.present += len(indices) if there else 0
        return there

    def write(self, index: int, record: dict[str, Any], frames: Frames) -> None:
        """Append one sample to its shard unless an earlier run has."""
        if self._is_written(index):
            self.present += 1
            return
        shard, _ = self._place(index)
        key = self._key(index, record)
        members = b"".join(_member(f"{key}{suffix}", data) for suffix, data in self._contents(index, record, frames))
        with self._claimed.file(_shard_name(shard)) as path:
            file = self._opened(shard, path)
            file.append(members)
            # Listed last: what a killed process wrote of the next sample is cut away.
            line = {"index": index, "key": record["key"], "file": path.name, "member": key, "end": file.size}
            self._list.append(encode_line(line))
            self._files[key] = index
            self._ends.setdefault(shard, []).append(file.size)
            if self._is_full(shard):
                self._complete(shard, path)
        self.written += 1

    def finish(self) -> None:
        """Name the classes beside the shards; MissingFolderError where the folder was moved away."""
        super().finish()
        if self._store.labels:
            replace_file(self.folder / CLASSES, "".join(f"{name}\n" for name in self._store.labels).encode())

    def _restore(self, entries: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Take up the shards that are there; one whose file is gone, or shorter than listed, is made anew."""
        for place, entry in entries:
            index, end, key = entry["index"], entry.get("end"), entry.get("member")
            shard, row = self._place(index) if index in self._indices else (0, len(self._indices))
            ends = self._ends.setdefault(shard, [])
            if row > len(ends) or type(end) is not int or end < 0 or not isinstance(key, str):
                raise UsageError(f"{place}: holds {brief(entry)}, expected a sample and where it ends; {REMEDY}")
            self._files[key] = index
            ends[row:] = [end]
        for shard, ends in list(self._ends.items()):
            path = self.folder / _shard_name(shard)
            growing = temporary_path(path)
            if path.exists():
                continue
            if growing.is_symlink() or not growing.is_file() or growing.stat().st_size < ends[-1]:
                del self._ends[shard]
            elif self._is_full(shard):
                self._opened(shard, path)
                self._complete(shard, path)

    def _place(self, index: int) -> tuple[int, int]:
        """Shard of a sample, and its row there."""
        return divmod(self._indices.index(index), self._size)

    def _is_written(self, index: int) -> bool:
        shard, row = self._place(index)
        return row < len(self._ends.get(shard, ()))

    def _is_full(self, shard: int) -> bool:
        return len(self._ends[shard]) == min(self._size, len(self._indices) - shard * self._size)

    def _opened(self, shard: int, path: Path) -> LineFile:
        if self._file is None or self._file[0] != shard:
            if path.exists():
                raise UsageError(f"{path} was not written by grn decode; {REMEDY}, or move it away")
            self._close_shard()
            ends = self._ends.get(shard)
            self._file = shard, LineFile(temporary_path(path), size=ends[-1] if ends else 0)
        return self._file[1]

    def _complete(self, shard: int, path: Path) -> None:
        file = self._opened(shard, path)
        file.append(bytes(_END + -(file.size + _END) % tarfile.RECORDSIZE))
        self._close_shard()
        temporary_path(path).replace(path)

    def _close_shard(self) -> None:
        if self._file is not None:
            self._file[1].close()
            self._file = None

    def __exit__(self, *details: object) -> None:
        self._close_shard()
        super().__exit__(*details)

    def _key(self, index: int, record: Mapping[str, Any]) -> str:
        key = shard_key(record)
        return key if self._files.get(key, index) == index else f"{key}@{index}"

    def _contents(self, index: int, record: Mapping[str, Any], frames: Frames) -> Iterator[tuple[str, bytes]]:
        """Suffix and bytes of each file of a sample."""
        if len(frames) == 1:
            yield self._form.picture.suffix, self._form.picture.encode(frames[0])
        else:
            with tempfile.TemporaryDirectory() as folder:  # ffmpeg goes back in it
                write_mp4(Path(folder) / "clip.mp4", frames, fps_of(record))
                yield ".mp4", (Path(folder) / "clip.mp4").read_bytes()
        label, names = int(self._labels[index]), self._store.labels
        about = {name: value for name, value in record.items() if name not in ("grid", "row", "source")}
        if label >= 0:
            yield ".cls", b"%d" % label
            about |= {"label": names[label]} if names else {}
        yield ".json", encode_line(about)
        if texts := [" ".join(caption.text.split()) for caption in self._captions.of_sample(record)]:
            yield ".txt", "".join(f"{text}\n" for text in texts).encode()


def selection(indices: range) -> dict[str, int]:
    """What a folder of shards records of the samples that are in them."""
    return {"first": indices[0], "last": indices[-1], "step": indices.step}


def shard_key(record: Mapping[str, Any]) -> str:
    """Key of a sample in a shard: its source without the suffix, with the marks of its window and mirroring.

    Readers of WebDataset end a key at the first dot of its last part, which therefore has none.
    """
    suffix = PurePosixPath(source_key(record)).suffix
    suffix = suffix if kind_of_suffix(suffix and f"a{suffix}") else ""
    path = PurePosixPath(file_name(record, suffix).removesuffix(suffix))
    return str(path.with_name(path.name.replace(".", "_")))


def _shard_name(shard: int) -> str:
    return f"{shard:06d}.tar"


def _member(name: str, data: bytes) -> bytes:
    """A file as it stands in a tar: nothing in it depends on when or by whom it is written."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _labels(store: BitStore) -> NDArray[np.int32]:
    """Label of every sample."""
    labels = np.empty(len(store), np.int32)
    for grid in store.grids:
        view = store.grid(grid)
        labels[view.indices] = view.labels()
    return labels
