"""A small deterministic run over made-up sources, as a command would drive the writer."""

import hashlib
from pathlib import Path

import numpy as np

from grncli.store import Fingerprint, open_part

GRIDS = [(1, 2, 3), (2, 2, 2), (1, 1, 5)]
SOURCES = 9


def fingerprint(**changes):
    settings = {
        "rounds": 3,
        "channels": 10,
        "stride": (1, 16, 16),
        "tokenizer": {"name": "toy", "sha256": "3f9c" * 16},
        "preprocessing": {"size": 256},
        "labels": ("ant", "bee"),
        "versions": {"grncli": "0.1.0"},
    }
    return Fingerprint(**{**settings, **changes})


def random_bits(n, grid, rounds=3, channels=10, seed=0):
    planes = np.random.default_rng(seed).integers(0, 2, (n, *grid, rounds, channels), dtype=np.uint8)
    return np.packbits(planes, axis=-1)


def records(n, source):
    return [{"key": f"{source}#{i}", "source": source} for i in range(n)]


def process(writer, number):
    """Source ``number``: one cannot be read, the others give one to three samples, some with zeros only."""
    if number % 4 == 2:
        writer.fail(f"{number}.png", number, "truncated")
        return
    grid, n = GRIDS[number % 3], 1 + number % 3
    bits = random_bits(n, grid, seed=number) * (number % 5 != 0)
    numbers = np.full(n, number)
    writer.append(grid, bits, numbers % 2, records(n, f"{number}.png"), seed=numbers, entropy=numbers / 3)


def run(path, *, part=0, parts=1, sources=SOURCES, overwrite=False, after_commit=lambda: None):
    """Process what is left, with a commit after every second source."""
    columns = [("seed", np.int64), ("entropy", np.float32)]
    with open_part(path, fingerprint(), part, parts, overwrite, columns) as writer:
        for number in range(writer.position, sources):
            process(writer, number)
            if number % 2 or number + 1 == sources:
                writer.commit(number + 1, hashlib.sha256(str(number).encode()).hexdigest(), sources)
                after_commit()
        writer.finish()


def tree(path):
    """Every file below ``path`` with its bytes, every directory with None."""
    path = Path(path)
    return {str(entry.relative_to(path)): entry.read_bytes() if entry.is_file() else None for entry in path.rglob("*")}
