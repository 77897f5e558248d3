"""Speed of the bit statistics, beside a memory copy of the same bytes: pytest -m bench -s tests/bench."""

import time

import numpy as np
import pytest

from grncli.bit_statistics.survey import bit_statistics
from grncli.store import Fingerprint, open_part, open_store

pytestmark = pytest.mark.bench

GRID = (1, 16, 16)
BYTES = 1 << 28
BLOCK = 1 << 20
REPEATS = 3


def best(action):
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def make_store(path, rounds, channels, different):
    """256 MiB of bits, with as many different tokens (None: all of them)."""
    row = (*GRID, rounds, -(-channels // 8))
    rows, generator = max(1, BLOCK // int(np.prod(row))), np.random.default_rng(0)
    tokens = generator.integers(0, 256, (different or 1, *row[3:]), dtype=np.uint8)
    with open_part(path, Fingerprint(rounds, channels, (1, 16, 16), {"name": "bench", "sha256": "0"}, {})) as writer:
        for number in range(BYTES // (rows * int(np.prod(row)))):
            if different:
                bits = tokens[generator.integers(0, different, (rows, *GRID))]
            else:
                bits = generator.integers(0, 256, (rows, *row), dtype=np.uint8)
            writer.append(GRID, bits, None, [{"key": f"{number}-{i}", "source": "s"} for i in range(rows)])
        writer.commit(1, "")
        writer.finish()
    return open_store(path)


@pytest.mark.parametrize(
    ("rounds", "channels", "different"),
    [(4, 16, None), (4, 16, 1000), (4, 16, 900_000), (4, 64, None), (8, 16, None), (4, 8, None), (1, 16, None)],
)
def test_statistics(tmp_path, rounds, channels, different):
    store = make_store(tmp_path / "bits.zarr", rounds, channels, different)
    source = np.random.default_rng(0).integers(0, 256, BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    copy, ours = best(lambda: np.copyto(target, source)), best(lambda: bit_statistics(store))
    print(
        f"\nM={rounds} C={channels:<3d} {different or 'all':>7} different tokens  {ours:5.2f} s"
        f" {BYTES / ours / 1e6:6.0f} MB/s, {copy / ours:6.1%} of a memory copy ({BYTES / copy / 1e6:.0f} MB/s)",
        end="",
    )
