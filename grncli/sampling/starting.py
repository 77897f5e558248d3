"""Starting from samples that are there: what is given, and what of it stays (inpainting, variations, first frames)."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.hbq import index_to_bits, unpack
from grncli.media.formats import suffix_of
from grncli.media.images import open_image
from grncli.models.generator import GeneratorConfig
from grncli.models.transformer import Grid
from grncli.rng import Purpose, uniform
from grncli.runtime.errors import MediaError, StoreError, StoreMismatch, UsageError
from grncli.sampling.refiner import Job
from grncli.store import BitStore, grid_name, open_store

FIRST_FRAME = "first-frame"
MAX_MASK_PIXELS = 1 << 26

Held = Callable[[int], Tensor]


class Start:
    """The samples of a store as what new ones start from.

    Parameters
    ----------
    grid : of the new samples; that of the store's may have fewer frames where the first frame is kept
    labels : class names of the generator
    keep : a PNG file whose white pixels stay, ``first-frame``, or the share of all elements that stays

    Attributes
    ----------
    labels : class of each sample, the null class where the generator does not know it
    digest : hash of the store's bits
    kept : what of them stays, for fingerprints

    Raises
    ------
    UsageError, StoreMismatch, StoreError
        If ``keep`` is none of these, or the store does not fit the generator.
    """

    def __init__(
        self,
        path: Path,
        keep: str | None,
        grid: Grid,
        config: GeneratorConfig,
        *,
        tokenizer: Mapping[str, str],
        stride: Sequence[int],
        labels: Sequence[str],
        seed: int,
    ) -> None:
        if keep is None:
            raise UsageError(f"--init {path} needs --keep: a PNG mask, {FIRST_FRAME}, or a share between 0 and 1")
        store = open_store(path)
        if not store.complete:
            raise StoreError(f"{path} is not complete ({len(store)} samples so far); finish it first")
        _check_fit(store, path, config, tokenizer)
        fitting = [g for g in store.grids if g == grid or (keep == FIRST_FRAME and g[1:] == grid[1:])]
        if len(fitting) != 1 or len(store.grids) != 1:
            held = ", ".join(map(grid_name, store.grids)) or "no sample"
            raise StoreMismatch(f"{path} has {held}, expected samples of {grid_name(grid)} only; choose another --grid")
        self._view = store.grid(fitting[0])
        self._store = store
        self.digest = store.digest()
        self._config = config
        self._grid = grid
        self._seed = seed
        self._held = self._reader(keep, stride)
        own = self._view.labels()
        numbers = [labels.index(name) if name in labels else config.null_class for name in store.labels]
        self.labels = [numbers[label] if label >= 0 else config.null_class for label in own.tolist()]

    def __len__(self) -> int:
        return len(self._view)

    def key(self, row: int) -> str:
        """Key of the sample that is started from."""
        return str(self._store.record(int(self._view.indices[row]))["key"])

    def job(self, number: int, label: int) -> Job:
        """A sample that starts from row ``number % len(self)``."""
        config = self._config
        assert config.channels is not None
        assert config.rounds is not None
        packed = torch.from_numpy(self._view.read([number % len(self)]))
        index = unpack(packed, config.channels, config.rounds)
        there = index if config.prediction == "ind" else index_to_bits(index, config.rounds)
        given = torch.zeros(config.codec.token_channels, *self._grid, dtype=torch.uint8)
        frames = min(there.shape[2], self._grid[0])
        given[:, :frames] = there[0, :, :frames]
        return Job(number, label, given, self._held(number))

    def _reader(self, keep: str, stride: Sequence[int]) -> Held:
        shape = (self._config.codec.token_channels, *self._grid)
        if keep == FIRST_FRAME:
            if self._grid[0] == 1:
                raise UsageError(f"--keep {FIRST_FRAME}: the samples are single frames, expected clips (--grid TxHxW)")
            first = torch.zeros(shape, dtype=torch.bool)
            first[:, 0] = True
            self.kept: str | float = FIRST_FRAME
            return lambda number: first
        try:
            share = float(keep)
        except ValueError:
            tokens = read_mask(Path(keep), self._grid, stride)
            mask = tokens.expand(shape)
            self.kept = "mask " + sha256(np.packbits(tokens.numpy()).tobytes()).hexdigest()[:16]
            return lambda number: mask
        if not 0 < share < 1:
            raise UsageError(f"--keep {keep}: expected a share above 0 and below 1")
        self.kept = share
        return lambda number: uniform(self._seed, torch.tensor([number]), -1, Purpose.SELECTION, shape)[0] < share


def read_mask(path: Path, grid: Grid, stride: Sequence[int]) -> Tensor:
    """Tokens that stay, bool ``[h, w]``: those of a picture's mask all of whose pixels are white.

    Raises
    ------
    UsageError
        If the file is no picture of one pixel a token, or of the samples' own size.
    """
    _, height, width = grid
    try:
        # What shows nothing is not white.
        picture = open_image(str(path), suffix=suffix_of(str(path)), background="black", max_pixels=MAX_MASK_PIXELS)
    except MediaError as error:
        raise UsageError(f"--keep {path}: cannot be read as a picture: it {error}") from None
    white: NDArray[np.bool_] = np.asarray(picture.convert("L")) >= 128
    full = (height * stride[1], width * stride[2])
    if white.shape == full:
        white = np.all(white.reshape(height, stride[1], width, stride[2]), axis=(1, 3))
    if white.shape != (height, width):
        raise UsageError(
            f"--keep {path}: is {white.shape[1]}x{white.shape[0]} pixels, expected {full[1]}x{full[0]}, "
            f"the size of the samples, or {width}x{height}, a pixel a token"
        )
    return torch.from_numpy(white)


def _check_fit(store: BitStore, path: Path, config: GeneratorConfig, tokenizer: Mapping[str, str]) -> None:
    made = store.fingerprint.tokenizer.get("sha256")
    if tokenizer.get("sha256") not in (None, made):
        raise StoreMismatch(
            f"{path} was made by tokenizer {str(made)[:8]}, and the generator learned the bits of "
            f"{tokenizer['sha256'][:8]}; give a store of the same tokenizer"
        )
    if store.channels != config.channels or store.rounds < (config.rounds or 0):
        raise StoreMismatch(
            f"{path} has rounds={store.rounds} and channels={store.channels}, and the generator "
            f"rounds={config.rounds} and channels={config.channels}; give another store"
        )
