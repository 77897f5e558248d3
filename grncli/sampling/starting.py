"""Starting from samples that are there: what of them is known (inpainting, variations, first frames)."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.media.formats import suffix_of
from grncli.media.images import open_image
from grncli.models.generator import GeneratorConfig
from grncli.models.transformer import Grid
from grncli.rng import Purpose, uniform
from grncli.runs.fitting import BitFormat, require_fit
from grncli.runtime.errors import MediaError, StoreError, StoreMismatch, UsageError
from grncli.store import grid_name, open_store

FIRST_FRAME = "first-frame"
MAX_MASK_PIXELS = 1 << 26

Known = Callable[[int], Tensor]  # the mask of a sample's number


class Start:
    """The samples of a store as what new ones start from.

    Parameters
    ----------
    grid : of the new samples; that of the store's may have fewer frames where the first frame is kept
    labels : class names of the generator
    keep : a PNG file whose white pixels stay, ``first-frame``, or the share of all channels of all tokens that stays

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
        learned = BitFormat.of_generator(config, tokenizer, stride)
        require_fit(BitFormat.of_store(store), learned, "give a store of the same tokenizer")
        fitting = [g for g in store.grids if g == grid or (keep == FIRST_FRAME and g[1:] == grid[1:])]
        if len(fitting) != 1 or len(store.grids) != 1:
            there = ", ".join(map(grid_name, store.grids)) or "no sample"
            raise StoreMismatch(
                f"{path} has {there}, expected samples of {grid_name(grid)} only; choose another --grid"
            )
        self._view = store.grid(fitting[0])
        self._store = store
        self.digest = store.digest()
        self._codec = config.codec
        self._grid = grid
        self._seed = seed
        self._known = self._mask_of(keep, stride)
        own = self._view.labels()
        numbers = [labels.index(name) if name in labels else config.null_class for name in store.labels]
        self.labels = [numbers[label] if label >= 0 else config.null_class for label in own.tolist()]

    def __len__(self) -> int:
        return len(self._view)

    def record(self, row: int) -> dict[str, Any]:
        """What the store says of the sample that is started from."""
        return self._store.record(int(self._view.indices[row]))

    def known(self, number: int) -> tuple[Tensor, Tensor]:
        """Tokens of row ``number % len(self)``, uint8 ``[channels, T, h, w]``, and the mask of what of them stays."""
        stored = self._codec.unpack(torch.from_numpy(self._view.read([number % len(self)])))
        tokens = torch.zeros(self._codec.token_channels, *self._grid, dtype=torch.uint8)
        frames = min(stored.shape[2], self._grid[0])
        tokens[:, :frames] = stored[0, :, :frames]
        return tokens, self._known(number)

    def _mask_of(self, keep: str, stride: Sequence[int]) -> Known:
        shape = (self._codec.token_channels, *self._grid)
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
