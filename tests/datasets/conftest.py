import json

import numpy as np
import pytest

from grncli.store import Fingerprint, open_part
from grncli.store.captions import CAPTIONS

SQUARE, WIDE = (1, 2, 2), (1, 2, 3)
ROUNDS, CHANNELS = 3, 10


def make_store(path, counts):
    """A store in two parts of random bits, so many samples of each grid in each; every third has captions."""
    fingerprint = Fingerprint(
        rounds=ROUNDS,
        channels=CHANNELS,
        stride=(1, 16, 16),
        tokenizer={"name": "toy", "sha256": "3f9c" * 16},
        preprocessing={"size": 32},
        labels=("ant", "bee"),
        parts=2,
    )
    for part in range(2):
        generator = np.random.default_rng(part)
        captions = []
        with open_part(path, fingerprint, part, 2) as writer:
            for grid, count in counts.items():
                planes = generator.integers(0, 2, (count, *grid, ROUNDS, CHANNELS), np.uint8)
                sources = [f"{part}/{grid[2]}-{row}.png" for row in range(count)]
                labels = np.arange(count, dtype=np.int32) % 3 - 1
                records = [{"key": source, "source": source} for source in sources]
                writer.append(grid, np.packbits(planes, axis=-1), labels, records)
                captions += [
                    {"source": source, "captions": [{"content": f"first of {source}"}, {"content": "second"}]}
                    for source in sources[::3]
                ]
            writer.commit(1, "0" * 64, 1)
            writer.finish()
        lines = "".join(json.dumps(line) + "\n" for line in captions)
        (path / f"part-{part:05d}" / CAPTIONS).write_text(lines)
    return path


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """34 samples of one grid in two parts."""
    return make_store(tmp_path_factory.mktemp("stores") / "one.zarr", {SQUARE: 17})


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """In each of two parts 5 samples of one grid and 4 of another."""
    return make_store(tmp_path_factory.mktemp("stores") / "mixed.zarr", {SQUARE: 5, WIDE: 4})
