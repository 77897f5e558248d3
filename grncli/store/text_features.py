"""Features stores: what a text encoder made of prompts in their final form, found by the prompts' digests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grncli.runtime.errors import StoreError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import UrlPath, located
from grncli.store.feature_settings import (
    DIGEST,
    DIGEST_BYTES,
    FEATURES,
    FeatureSchema,
    FeatureSettings,
    read_feature_settings,
)
from grncli.store.root_kinds import BITS_ATTRIBUTE, FEATURES_ATTRIBUTE
from grncli.store.rows.byte_source import ByteSource, root_attributes
from grncli.store.rows.claiming import Claim, Overwrite, claim_part, explained
from grncli.store.rows.row_reader import GroupView, RowStore
from grncli.store.rows.row_writer import RowWriter
from grncli.store.rows.store_places import files_of
from grncli.store.rows.stored import stored_arrays
from grncli.store.rows.verifying import verify_rows

_DIGEST = np.dtype(f"S{DIGEST_BYTES}")  # arrays of it compare by all their bytes, zeros at the end included


def open_features(path: str | Path) -> "FeatureStore":
    """Open a features store for reading, also while other processes write it; StoreError when it cannot be."""
    return FeatureStore(located(path))


def is_features_store(path: Path) -> bool:
    """Whether a folder or URL says that it is one."""
    return FEATURES_ATTRIBUTE in (root_attributes(files_of(path)) or {})


def is_bit_store(path: Path) -> bool:
    """Whether a folder or URL says that it is a bit store."""
    there = path.is_dir() or isinstance(located(path), UrlPath)
    return there and BITS_ATTRIBUTE in (root_attributes(files_of(path)) or {})


def verify_features(path: str | Path, monitor: Monitor | None = None) -> list[str]:
    """Check every committed byte of a features store, as ``verify_store`` does for bits.

    Returns
    -------
    The problems found, one sentence each; none when it is sound.

    Raises
    ------
    StoreError
        If there is no features store at ``path``.
    Unfinished
        If the monitor asked to stop.
    """
    source = files_of(path, cached=False)
    return verify_rows(source, FeatureSchema(read_feature_settings(source)), monitor or Monitor())


def open_feature_part(
    path: str | Path,
    settings: FeatureSettings,
    part: int = 0,
    *,
    overwrite: bool = False,
    resumes: Callable[[int, str], bool] = lambda position, digest: True,
) -> "FeatureWriter":
    """Open a part of ``settings.parts`` for writing, created if need be, else where its last commit left it.

    Parameters
    ----------
    path : store directory
    settings : of the command; a store made with others is refused
    overwrite : discard what the part holds, or with one part the whole store whatever its settings; but resume what an
        earlier call began to overwrite with the same settings and did not complete
    resumes : whether an interrupted overwrite, with this (position, digest), fits the prompts of now

    Raises
    ------
    StoreMismatch
        If the store was made with other settings; the message names each field.
    StoreError
        If another process writes the part, the directory is not a features store, or the disk does not let us.
    """
    if not 0 <= part < settings.parts:
        raise ValueError(f"part {part} is not one of {settings.parts}")
    store, schema = Path(path), FeatureSchema(settings)
    refuse_bit_store(store)
    with explained(store, "what was committed is safe"):
        claim = claim_part(store, schema, part, Overwrite({}, resumes) if overwrite else None)
        return FeatureWriter(store, schema, part, claim)


def refuse_bit_store(path: Path) -> None:
    """StoreError for a bit store where a features store is to be written."""
    if is_bit_store(path):
        raise StoreError(f"{path} is a bit store, expected a features store or a new name; choose another OUT.")


class FeatureWriter(RowWriter):
    """The one writer of a part of a features store. Leaving its ``with`` block drops what was not committed."""

    def __init__(self, store: Path, schema: FeatureSchema, part: int, claim: Claim) -> None:
        """Use ``open_feature_part``."""
        super().__init__(store, schema, part, {}, claim)

    def append(self, features: Tensor, prompts: Sequence[str], digests: Sequence[str]) -> None:
        """Add n prompts of one number of tokens; they count from the next ``commit`` on.

        Parameters
        ----------
        features : float ``[n, length, width]``, rounded to the nearest bfloat16 (ties to even)
        prompts : in their final form
        digests : SHA-256 of each prompt's UTF-8, in hexadecimal

        Raises
        ------
        ValueError
            If a feature is no finite number.
        """
        rows = _bytes_of(digests).view(np.uint8).reshape(-1, DIGEST_BYTES)
        lines = [{"prompt": prompt} for prompt in prompts]
        self.append_rows(str(features.shape[1]), {FEATURES: to_words(features), DIGEST: rows}, lines)

    def lacking(self, digests: Sequence[str]) -> list[int]:
        """Positions of prompts, by the SHA-256 of each, that are not among the committed ones of this part."""
        parts = stored_arrays(self._source, self.part, self._record, self.schema)
        arrays = [array for _, group in parts for array in group if array.layout.name == DIGEST]
        committed = np.concatenate([_bytes_of([]), *(_digests_in(array.read_all()) for array in arrays)])
        return np.flatnonzero(~np.isin(_bytes_of(digests), committed)).tolist()


class FeatureStore(RowStore[GroupView]):
    """The committed features of a store, as they were when it was opened; what every `RowStore` has besides.

    Attributes
    ----------
    settings : what the store was made with
    groups : prompts of each number of tokens
    """

    def __init__(self, path: Path, source: ByteSource | None = None) -> None:
        """Use ``open_features``."""
        self.path = path
        source = source or files_of(path)
        self.settings = read_feature_settings(source)
        super().__init__(source, FeatureSchema(self.settings), GroupView)
        self._groups = [self.group(name) for name in self.groups]
        # Number of the first row of each group among all rows, group by group; `find` gives such numbers.
        self._firsts = np.cumsum([0, *map(len, self._groups)])
        self._index: tuple[NDArray[np.bytes_], NDArray[np.int64]] | None = None

    @property
    def encoder(self) -> dict[str, str]:
        """Name and sha256 of the encoder that made the features."""
        return dict(self.settings.encoder)

    @property
    def width(self) -> int:
        """Width of a token's features."""
        return self.settings.width

    @property
    def nbytes(self) -> int:
        """Bytes of all features."""
        return sum(len(view) * view.layouts[FEATURES].row_bytes for view in self._groups)

    def __contains__(self, digest: str) -> bool:
        return bool(self.find([digest])[0] >= 0)

    def find(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Where the rows of prompts lie, by the SHA-256 of each in hexadecimal; -1 for a prompt that is not there."""
        known, places = self._read_index()
        wanted = _bytes_of(digests)
        if not len(known):
            return np.full(len(wanted), -1)
        nearest = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[nearest] == wanted, places[nearest], -1)

    def lengths(self, digests: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of prompts, by digest as in `find`; -1 for a prompt that is not there."""
        places = self.find(digests)
        lengths = np.array([int(name) for name in self.groups], np.int64)
        groups = np.searchsorted(self._firsts, places, "right") - 1
        return np.where(places < 0, -1, lengths[groups] if len(lengths) else -1)

    def read(self, digests: Sequence[str]) -> list[Tensor]:
        """Features ``[length, width]`` of prompts in the order given, float32.

        Those of one length are views of one block of memory.

        Raises
        ------
        KeyError
            With the first digest that is not in the store.
        """
        places = self.find(digests)
        if (places < 0).any():
            raise KeyError(digests[int(np.argmin(places))])
        features: dict[int, Tensor] = {}
        groups = np.searchsorted(self._firsts, places, "right") - 1
        for group in np.unique(groups).tolist():
            inside = np.flatnonzero(groups == group)
            words = self._groups[group].read_rows(FEATURES, places[inside] - self._firsts[group])
            features.update(zip(inside.tolist(), from_words(words), strict=True))
        return [features[i] for i in range(len(digests))]

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<FeatureStore {self.path}: {len(self)} prompts, width {self.width}, {state}>"

    def _read_index(self) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
        """Digests of all rows in ascending order, and the number of each's row; read once."""
        if self._index is None:
            blocks = [_digests_in(rows) for view in self._groups for _, rows in view.chunks_of(DIGEST)]
            digests = np.concatenate([_bytes_of([]), *blocks])
            order = np.argsort(digests, kind="stable")
            self._index = digests[order], order
        return self._index

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_index": None}


def to_words(features: Tensor) -> NDArray[np.uint16]:
    """Float numbers as the bits of the nearest bfloat16 (ties to even); ValueError where one is not finite."""
    rounded = features.detach().cpu().to(torch.bfloat16)
    if not rounded.isfinite().all():
        raise ValueError("features are not finite")
    return rounded.contiguous().view(torch.int16).numpy().view(np.uint16)


def from_words(words: NDArray[np.uint16]) -> Tensor:
    """The numbers as float32."""
    return torch.from_numpy(words.view(np.int16)).view(torch.bfloat16).float()


def as_stored(features: Tensor) -> Tensor:
    """Features as a store gives them back: float32 with the values of the nearest bfloat16."""
    return features.to(torch.bfloat16).float()


def _bytes_of(digests: Sequence[str]) -> NDArray[np.bytes_]:
    return np.frombuffer(bytes.fromhex("".join(digests)), _DIGEST)


def _digests_in(rows: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return rows.view(_DIGEST).reshape(-1)
