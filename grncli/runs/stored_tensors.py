"""Named tensors of a checkpoint, read one by one or in parts, from one file or from the shards of several processes.

What is asked for does not show how it is kept: whoever reads a part of a tensor gets it from the shards that overlap
it, and the hash is that of the one file with the same tensors.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.runs.checkpoint import OFFSETS, STATE, CheckpointState, ShardRecord, read_state
from grncli.runtime.errors import CheckpointError
from grncli.runtime.held_files import HeldFile
from grncli.runtime.jsonfiles import parse_json
from grncli.runtime.tensor_files import DTYPES, bytes_of, lay_out, naming_damage, open_tensors

REMEDY = "use another checkpoint"


@dataclass(frozen=True)
class StoredSize:
    """Shape and type of a tensor as headers say, before memory is asked for; a type that is not ours is its name."""

    shape: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True)
class _Part:
    """Where a part of a tensor lies: in which file, and from where in the whole tensor."""

    file: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class StoredTensors:
    """Tensors of one name of a checkpoint (``ema``, ``weights``, ...), whose files stay open.

    Attributes
    ----------
    place : the file, or the folder of shards, for messages
    metadata : what the file has beside the tensors, as one file would
    sizes : shape and type of each tensor
    """

    def __init__(self, place: Path, files: Mapping[Path, Any], held: Sequence[HeldFile], *, sharded: bool) -> None:
        self.place = place
        self._files, self._opened, self._held, self._sharded = list(files), list(files.values()), held, sharded
        headers = [opened.metadata() or {} for opened in self._opened]
        self.metadata: dict[str, str] = headers[0]
        if sharded:
            self.metadata = {"config": headers[0].get("config", "{}")}
        self._parts: dict[str, list[_Part]] = {}
        self.sizes: dict[str, StoredSize] = {}
        for number, header in enumerate(headers):
            self._add(number, header)
        if sharded:
            self._check_whole()

    def _add(self, number: int, header: Mapping[str, str]) -> None:
        """Take in the tensors of one file."""
        file, opened = self._files[number], self._opened[number]
        offsets = _offsets(header, file) if self._sharded else {}
        if self._sharded and header.get("config", "{}") != self.metadata["config"]:
            raise CheckpointError(f"{file}: is of another network than {self._files[0].name}; {REMEDY}")
        for name in opened.keys():  # noqa: SIM118  # it is no dictionary
            piece = opened.get_slice(name)
            shape, dtype = tuple(piece.get_shape()), str(piece.get_dtype())
            offset = offsets.get(name, (-1,)) if self._sharded else (0,) * len(shape)
            size = self.sizes.get(name, StoredSize((0,) * len(shape), DTYPES.get(dtype, dtype)))
            fits = len(offset) == len(shape) == len(size.shape) and min(offset, default=0) >= 0
            if not fits or DTYPES.get(dtype, dtype) != size.dtype or (self._sharded and dtype not in DTYPES):
                raise CheckpointError(f"{file}: its part of {name[:60]} fits no other; {REMEDY}")
            ends = tuple(max(end, low + length) for end, low, length in zip(size.shape, offset, shape, strict=True))
            self.sizes[name] = StoredSize(ends, size.dtype)
            self._parts.setdefault(name, []).append(_Part(number, offset, shape))

    def _check_whole(self) -> None:
        for name, parts in self._parts.items():
            present = sum(torch.Size(part.shape).numel() for part in {part.offset: part for part in parts}.values())
            if present != torch.Size(self.sizes[name].shape).numel():
                raise CheckpointError(f"{self.place}: the shards do not hold all of {name[:60]} once; {REMEDY}")

    def read(self, name: str, offset: Sequence[int] | None = None, shape: Sequence[int] | None = None) -> Tensor:
        """A tensor on the CPU, or the part of it that begins at ``offset`` and has this shape.

        Raises
        ------
        CheckpointError
            If a file is damaged.
        """
        size = self.sizes[name]
        start = tuple(offset) if offset is not None else (0,) * len(size.shape)
        wanted = tuple(shape) if shape is not None else size.shape
        result: Tensor | None = None
        for part in self._parts[name]:
            low = [max(a, b) for a, b in zip(start, part.offset, strict=True)]
            high = [min(a + n, b + m) for a, n, b, m in zip(start, wanted, part.offset, part.shape, strict=True)]
            if any(a >= b for a, b in zip(low, high, strict=True)):
                continue
            found = self._read_part(name, part, low, high)
            if found.shape == wanted:
                return found
            # What the shards hold has no gaps, so that all of it is filled.
            result = torch.empty(wanted, dtype=size.dtype) if result is None else result
            result[tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))] = found
        return torch.empty(wanted, dtype=size.dtype) if result is None else result

    def _read_part(self, name: str, part: _Part, low: Sequence[int], high: Sequence[int]) -> Tensor:
        """The region from ``low`` up to but without ``high`` of a tensor, all of which ``part`` has."""
        opened = self._opened[part.file]
        with naming_damage(self._files[part.file]):
            if tuple(b - a for a, b in zip(low, high, strict=True)) == part.shape:
                whole: Tensor = opened.get_tensor(name)
                return whole
            inside = tuple(slice(a - o, b - o) for a, b, o in zip(low, high, part.offset, strict=True))
            region: Tensor = opened.get_slice(name)[inside]
            return region

    def confirm(self) -> None:
        """Raise CheckpointError if a file was replaced or written to since it was opened."""
        for held in self._held:
            held.confirm()

    def sha256(self) -> str:
        """SHA-256 of the one file that holds these tensors whole, which is put together from shards on the way."""
        if not self._sharded:
            return self._held[0].sha256()
        names, header = lay_out(self.sizes, self.metadata)
        digest = hashlib.sha256(header)
        for name in names:
            digest.update(bytes_of(self.read(name)))
        self.confirm()
        return digest.hexdigest()


@contextmanager
def open_stored(checkpoint: Path, name: str) -> Iterator[StoredTensors]:
    """The tensors of one name of a checkpoint, for the time of a block.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, or a shard is of another length, step or network.
    """
    state = read_state(checkpoint) if (checkpoint / name).is_dir() else None
    with _opened(checkpoint, name, state) as stored:
        yield stored


def check_checkpoint(checkpoint: Path) -> CheckpointState:
    """The state of a checkpoint whose files are there, of their whole length and with all their tensors.

    Raises
    ------
    CheckpointError
        If one is not. The weights themselves are not read.
    """
    state = read_state(checkpoint)
    counts: Mapping[str, int | None] = state.tensors or {"ema": None}
    for name, count in counts.items():
        with _opened(checkpoint, name, state) as stored:
            if count not in (None, len(stored.sizes)):
                raise CheckpointError(f"{stored.place}: holds {len(stored.sizes)} tensors, expected {count}; {REMEDY}")
    return state


@contextmanager
def _opened(checkpoint: Path, name: str, state: CheckpointState | None) -> Iterator[StoredTensors]:
    """As `open_stored`; without ``state`` the tensors lie in one file."""
    shards = state.shards.get(name) if state is not None else None
    place = checkpoint / (f"{name}.safetensors" if shards is None else name)
    records = {place: None} if shards is None else {place / file: record for file, record in shards.items()}
    with contextlib.ExitStack() as stack:
        held, opened = [], {}
        for file, record in records.items():
            if record is not None:
                _check_length(file, record, len(records))
            held.append(stack.enter_context(HeldFile(file)))
            opened[file] = stack.enter_context(open_tensors(file))
            if record is not None and state is not None:
                _check_shard(file, opened[file], record, state.step)
        stored = StoredTensors(place, opened, held, sharded=shards is not None)
        stored.confirm()
        yield stored


def _check_length(file: Path, record: ShardRecord, count: int) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        listed = f"expected one of the {count} shards that {STATE} lists"
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}), {listed}; {REMEDY}") from None
    if size != record.bytes:
        raise CheckpointError(f"{file}: has {size} bytes, expected {record.bytes}; {REMEDY}")


def _check_shard(file: Path, opened: Any, record: ShardRecord, step: int) -> None:
    written, count = (opened.metadata() or {}).get("step"), len(opened.keys())
    if written != str(step):
        raise CheckpointError(f"{file}: is of step {str(written)[:20]}, expected {step}; {REMEDY}")
    if count != record.tensors:
        raise CheckpointError(f"{file}: holds {count} tensors, expected {record.tensors}; {REMEDY}")


def _offsets(header: Mapping[str, str], file: Path) -> dict[str, tuple[int, ...]]:
    """Where the parts of a shard begin in their tensors."""
    name = f"{file}: {OFFSETS}"
    document = parse_json(header.get(OFFSETS, "").encode(), name, error=CheckpointError, remedy=REMEDY)
    try:
        return {key: tuple(int(number) for number in value["saved_offsets"]) for key, value in document.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointError(f"{name}: is no offset of each tensor; {REMEDY}") from None
