"""Samples as PNG and MP4 files, through the tokenizer, with what made them in their metadata and in a JSON file."""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.decoding.outputs import DEFAULT_FPS, file_name
from grncli.decoding.store_decoding import decode_index
from grncli.hbq import bits_to_index, unpack
from grncli.media.writing import write_mp4, write_png
from grncli.models.generator import GeneratorConfig
from grncli.models.tokenizer import Tokenizer
from grncli.runs.generator_recipe import Bits
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import StoreMismatch, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.folders import inside
from grncli.runtime.jsonfiles import to_json
from grncli.runtime.stopping import Stop, Stopped
from grncli.store import BitStore, open_store, store_lock

BITS = "samples.zarr"  # the bits of a folder of pictures, beside them
LIST = "samples.json"
COLUMNS = (("number", "int64"), ("seed", "int64"), ("steps", "int32"), ("evaluations", "int32"), ("entropy", "float32"))

Frames = NDArray[np.uint8]


def load_fitting_tokenizer(
    run: str | Path, bits: Bits, config: GeneratorConfig, *, say: Callable[[str], None] = lambda text: None
) -> LoadedTokenizer:
    """The tokenizer of a run; StoreMismatch unless a generator learned its bits.

    ``say`` is told in a sentence where its training is not finished.
    """
    loaded = open_tokenizer(run, say=say)
    tokenizer, identity = loaded.network, loaded.identity
    learned = bits.tokenizer.get("sha256")
    if learned not in (None, identity["sha256"]):
        raise StoreMismatch(
            f"{run} is tokenizer {identity['name']} ({identity['sha256'][:8]}…), and the generator learned the bits of "
            f"{bits.tokenizer.get('name')} ({learned[:8]}…); give the run of that one"
        )
    if tokenizer.channels != config.channels or tuple(tokenizer.stride) != tuple(bits.stride):
        raise StoreMismatch(
            f"{run} has {tokenizer.channels} channels at stride {list(tokenizer.stride)}, and the generator makes "
            f"{config.channels} at {list(bits.stride)}; give the run of the tokenizer it was trained for"
        )
    return loaded


def to_index(drawing: Tensor, config: GeneratorConfig) -> Tensor:
    """Token maps ``[B, elements, T, h, w]`` as indices ``[B, C, T, h, w]``."""
    assert config.rounds is not None
    return drawing if config.prediction == "ind" else bits_to_index(drawing, config.rounds)


class PictureFolder:
    """A folder of samples as files, and their bits beside them.

    Raises
    ------
    UsageError
        If it is a file, or holds what ``grn sample`` did not make.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, rounds: int, fps: float | None) -> None:
        self.folder = folder
        self.tokenizer = tokenizer
        self.rounds = rounds
        self.fps = fps or DEFAULT_FPS
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, expected OUT.zarr or a folder for pictures")
        if folder.is_dir() and any(folder.iterdir()) and not os.path.lexists(self.bits):
            raise UsageError(f"{folder} holds files that grn sample did not write; choose another OUT")
        if self.bits.is_symlink():
            raise UsageError(
                f"{self.bits} is a link, and nothing is written or removed through links; put what it leads to in its "
                "place, or choose another OUT"
            )

    @property
    def bits(self) -> Path:
        """Where the bits of the pictures are."""
        return self.folder / BITS

    def remove(self, part: int | None) -> None:
        """Remove the files of the samples of one part of the folder's store, or of all, and the list of all samples."""
        store = open_store(self.bits)
        starts = [0, *accumulate(found.samples for found in store.parts)]
        own = range(len(store)) if part is None else range(*starts[part : part + 2])
        for i, record, _ in samples_of(store):
            if i in own:
                inside(self.folder, self.name(record, store.grid_of(i)[0])).unlink(missing_ok=True)
        (self.folder / LIST).unlink(missing_ok=True)

    def write(self, packed: NDArray[np.uint8], record: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write the file of one sample, packed bits ``[t, h, w, M, bytes]``."""
        frames = decode_packed(self.tokenizer, packed, self.rounds)
        path = inside(self.folder, self.name(record, len(frames)), create=True)
        comment = to_json(about)
        if len(frames) == 1:
            write_png(path, frames[0], comment)
        else:
            write_mp4(path, frames, self.fps, comment)

    @staticmethod
    def name(record: Mapping[str, Any], frames: int) -> str:
        """File of a sample below the folder."""
        return file_name(record, ".png" if frames == 1 else ".mp4")

    def complete(self, own: Collection[int], about: Mapping[str, Any], stop: Stop) -> None:
        """Write the files that are missing of this part's samples (``own`` numbers), and the list of all there are.

        Raises
        ------
        Stopped
            If ``stop`` asked for it.
        """
        store = open_store(self.bits)
        made = 0
        for index, record, numbers in samples_of(store):
            file = inside(self.folder, self.name(record, store.grid_of(index)[0]))
            if numbers["number"] in own and not file.exists():
                if made and stop.reason:  # something remains of each call, so that short ones come to the end too
                    raise Stopped(f"{stop.reason}: stopped before all pictures were written; their bits are saved")
                self.write(store[index].bits, record, {**numbers, **asked_for(record), **about})
                made += 1
        with store_lock(self.bits):  # other parts write the same list
            store = open_store(self.bits)
            lines = [
                {
                    "file": self.name(record, store.grid_of(index)[0]),
                    **numbers,
                    **asked_for(record),
                }
                for index, record, numbers in samples_of(store)
            ]
            with whole_file(self.folder / LIST) as temporary:
                temporary.write_text(to_json({**about, "samples": lines}, indent=1) + "\n", encoding="utf-8")


def asked_for(record: Mapping[str, Any]) -> dict[str, Any]:
    """Class and prompt of a sample, for metadata."""
    return {name: record[name] for name in ("class", "prompt", "prompt_number") if name in record}


def decode_packed(tokenizer: Tokenizer, packed: NDArray[np.uint8], rounds: int) -> Frames:
    """Packed bits ``[t, h, w, M, bytes]`` of one sample to uint8 ``[T, H, W, 3]``.

    One at a time, so that a picture does not depend on others that are decoded with it.
    """
    device = next(tokenizer.parameters()).device
    index = unpack(torch.from_numpy(packed[None]).to(device), tokenizer.channels, rounds)
    frames: Frames = decode_index(tokenizer, index, rounds)[0]
    return frames


def samples_of(store: BitStore) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Index, record and numbers (seed, steps, ...) of each sample of a store that ``grn sample`` made, by number."""
    if set(store.columns) != {name for name, _ in COLUMNS}:
        raise UsageError(f"{store.path} is a bit store that grn sample did not make; choose another OUT")
    found = []
    for grid in store.grids:
        view = store.grid(grid)
        columns: dict[str, Sequence[Any]] = {name: view.column(name).tolist() for name, _ in COLUMNS}
        for row, index in enumerate(view.indices.tolist()):
            found.append((index, store.record(index), {name: column[row] for name, column in columns.items()}))
    return sorted(found, key=lambda sample: sample[2]["number"])
