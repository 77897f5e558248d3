"""Samples as PNG and MP4 files, through the tokenizer, with what made them in their metadata and in a JSON file."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grncli.decoding.outputs import DEFAULT_FPS, sample_file
from grncli.decoding.store_decoding import decode_index
from grncli.hbq import unpack
from grncli.media.writing import Frames, write_media
from grncli.models.generator import GeneratorConfig
from grncli.models.tokenizer import Tokenizer
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runs.generator_recipe import Bits
from grncli.runs.text_releases import require_belonging
from grncli.runs.tokenizers import LoadedTokenizer, open_tokenizer
from grncli.runtime.errors import UsageError
from grncli.runtime.folders import FolderMarker, inside
from grncli.runtime.jsonfiles import to_json, write_json
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.stopping import Stopped
from grncli.sampling.sample_store import StoredSample, StoredSamples
from grncli.store import BitStore, store_lock

BITS = "samples.zarr"  # the bits of a folder of pictures, beside them
LIST = "samples.json"


def load_fitting_tokenizer(
    run: str | Path,
    bits: Bits,
    config: GeneratorConfig,
    *,
    belonging: Sequence[str] = (),
    loaded: LoadedTokenizer | None = None,
    say: Say = lambda text: None,
) -> LoadedTokenizer:
    """The tokenizer of a run; StoreMismatch unless a generator learned its bits.

    Parameters
    ----------
    belonging : files of the released tokenizers that may be meant, none where they are not known
    loaded : the tokenizer of ``run``, where it has been opened already
    say : called with a sentence where its training is not finished
    """
    loaded = loaded or open_tokenizer(run, say=say)
    require_belonging(str(run), loaded.recipe.imported, belonging)
    learned = BitFormat.of_generator(config, bits.tokenizer, bits.stride)
    require_fit(BitFormat.of_tokenizer(loaded), learned, "give the run of that one")
    return loaded


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
        FolderMarker(
            folder=folder,
            file=self.bits,
            command="grn sample",
            purpose="OUT.zarr or a folder for pictures",
            remedy="choose another OUT",
        ).require_ours()
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
        samples = StoredSamples.read(self.bits)
        store = samples.store
        starts = [0, *accumulate(summary.samples for summary in store.parts)]
        own = range(len(store)) if part is None else range(*starts[part : part + 2])
        for sample in samples.entries:
            if sample.place in own:
                inside(self.folder, _file_of(sample, store)).unlink(missing_ok=True)
        (self.folder / LIST).unlink(missing_ok=True)

    def write(self, packed: NDArray[np.uint8], record: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Write the file of one sample, packed bits ``[t, h, w, M, bytes]``."""
        frames = decode_packed(self.tokenizer, packed, self.rounds)
        path = inside(self.folder, sample_file(record, clip=len(frames) > 1), create=True)
        write_media(path, frames, self.fps, to_json(about))

    def lacking(self, samples: StoredSamples, own: Collection[int]) -> Iterator[StoredSample]:
        """Those of the samples with ``own`` numbers whose files are missing."""
        for sample in samples.entries:
            file = inside(self.folder, _file_of(sample, samples.store))
            if sample.numbers["number"] in own and not file.exists():
                yield sample

    def complete(
        self, samples: StoredSamples, own: Collection[int], about: Mapping[str, Any], monitor: Monitor
    ) -> StoredSamples:
        """Write the files that are missing of this part's samples (``own`` numbers), and the list of all there are.

        Returns the samples of that list.

        Raises
        ------
        Stopped
            If ``monitor`` asked for it.
        """
        for written, sample in enumerate(self.lacking(samples, own)):
            if written and (reason := monitor.stop_reason):  # each call does something, so that short ones end too
                raise Stopped(f"{reason}: stopped before all pictures were written; their bits are saved")
            self.write(samples.store[sample.place].bits, sample.record, {**sample.described(), **about})
        with store_lock(self.bits):
            if samples.store.fingerprint.parts > 1:  # others write the same list
                samples = StoredSamples.read(self.bits)
            lines = [{"file": _file_of(sample, samples.store), **sample.described()} for sample in samples.entries]
            write_json(self.folder / LIST, {**about, "samples": lines})
        return samples


def _file_of(sample: StoredSample, store: BitStore) -> str:
    return sample_file(sample.record, clip=store.grid_of(sample.place)[0] > 1)


def decode_packed(tokenizer: Tokenizer, packed: NDArray[np.uint8], rounds: int) -> Frames:
    """Packed bits ``[t, h, w, M, bytes]`` of one sample to uint8 ``[T, H, W, 3]``.

    One at a time, so that a picture does not depend on others that are decoded with it.
    """
    device = next(tokenizer.parameters()).device
    index = unpack(torch.from_numpy(packed[None]).to(device), tokenizer.channels, rounds)
    frames: Frames = decode_index(tokenizer, index, rounds)[0]
    return frames
