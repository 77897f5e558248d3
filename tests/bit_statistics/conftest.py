"""Small stores of made-up bits."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from grncli.store import BitStore, Fingerprint, open_part, open_store


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture(scope="session")
def make_store() -> Callable[..., BitStore]:
    def make(path: Path, *samples: np.ndarray, parts: int = 1) -> BitStore:
        """A store of 0/1 planes [n, t, h, w, M, C], one array a grid; sample i goes to part i % parts."""
        rounds, channels = samples[0].shape[-2:]
        fingerprint = Fingerprint(rounds, channels, (1, 4, 4), {"name": "toy", "sha256": "0"}, {}, parts=parts)
        for part in range(parts):
            with open_part(path, fingerprint, part, parts) as writer:
                for planes in samples:
                    bits = np.packbits(planes[part::parts], axis=-1)
                    grid = tuple(planes.shape[1:4])
                    writer.append(grid, bits, None, [{"key": str(i), "source": "s"} for i in range(len(bits))])
                writer.commit(1, "")
                writer.finish()
        return open_store(path)

    return make


@pytest.fixture(scope="session")
def draw_planes() -> Callable[..., np.ndarray]:
    def draw(samples: int, rounds: int, channels: int, *, grid=(1, 4, 4), seed: int = 0) -> np.ndarray:
        """Bits [n, t, h, w, M, C] that are one with a probability of their own each."""
        generator = np.random.default_rng(seed)
        share = generator.uniform(0.1, 0.9, (rounds, channels))
        return (generator.random((samples, *grid, rounds, channels)) < share).astype(np.uint8)

    return draw
