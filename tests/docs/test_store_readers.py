"""The readers on the page of the store format read what `grn` reads."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from grncli import open_store
from grncli.hbq import dequantize, unpack
from grncli.store import Fingerprint, open_part

PAGE = Path(__file__).parents[2] / "docs/store-format.md"
GRIDS = [(1, 2, 3), (2, 2, 2)]
ROUNDS, CHANNELS = 3, 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two parts of two grids each, with uncommitted rows at the end of the second."""
    path = tmp_path_factory.mktemp("store") / "bits.zarr"
    fingerprint = Fingerprint(
        rounds=ROUNDS,
        channels=CHANNELS,
        stride=(1, 16, 16),
        tokenizer={"name": "toy", "sha256": "3f9c" * 16},
        preprocessing={"size": 256},
        labels=(),
        versions={},
    )
    generator = np.random.default_rng(0)
    for part in range(2):
        with open_part(path, fingerprint, part, 2, False, []) as writer:
            for number in range(4):
                planes = generator.integers(0, 2, (3, *GRIDS[number % 2], ROUNDS, CHANNELS), dtype=np.uint8)
                keys = [{"key": f"{part}.{number}.{i}", "source": f"{number}"} for i in range(3)]
                writer.append(GRIDS[number % 2], np.packbits(planes, axis=-1), np.full(3, -1), keys)
                if number < 3 or part == 0:
                    writer.commit(number + 1, "0" * 64, 4)
            if part == 0:
                writer.finish()
    return path


def block(language):
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


def features_of(store):
    """Features [n, t, h, w, C] of each grid of each part, as `grn` reads them."""
    opened = open_store(store)
    for part in range(2):
        for grid in GRIDS:
            mine = [i for i in range(len(opened)) if opened.record(i)["key"][0] == str(part)]
            bits = opened.read([i for i in mine if opened.grid_of(i) == grid])
            yield dequantize(unpack(torch.from_numpy(bits), CHANNELS), ROUNDS).movedim(1, -1).numpy()


def test_numpy_reader(store):
    page = {}
    exec(block("python"), page)
    read = list(page["read_store"](store))
    assert [grid for grid, _ in read] == ["1x2x3", "2x2x2"] * 2
    for (_, features), expected in zip(read, features_of(store), strict=True):
        assert features.shape == expected.shape
        assert np.array_equal(features, expected)


def test_javascript_reader(store, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    script = tmp_path / "reader.mjs"
    show = (
        "for (const each of readStore(process.argv[2])) console.log(JSON.stringify([each.shape, [...each.features]]));"
    )
    script.write_text(f"{block('js')}\n{show}\n", encoding="utf-8")
    lines = subprocess.run([node, script, store], check=True, capture_output=True, text=True).stdout.splitlines()
    for line, expected in zip(lines, features_of(store), strict=True):
        shape, features = json.loads(line)
        assert shape == list(expected.shape)
        assert np.array_equal(np.float32(features), expected.ravel())
