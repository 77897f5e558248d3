"""A small training of a generator: its recipe, its stores, and ``grn train-gen`` in this process."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from typer.testing import CliRunner

from grncli.cli import app
from grncli.store import Fingerprint, open_part

SQUARE, WIDE = (1, 2, 2), (1, 2, 3)
STEPS = 24
RECIPE = f"""\
kind: generator
network: {{prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}}
data: {{batch: 4, validation: 2}}
optimization: {{learning_rate: 1e-3, ema: [0.6, 0.3]}}
training: {{steps: {STEPS}, log_every: 1, checkpoint_every: 6, validate_every: 8, keep: 2, dtype: float32}}
"""


def make_store(path: Path, counts: dict[tuple[int, int, int], int], **changes: Any) -> Path:
    """A store of random bits, so many samples of each grid; ``finish=False`` leaves it incomplete."""
    finish, unlabelled = changes.pop("finish", True), changes.pop("unlabelled", 0)
    made = {
        "rounds": 3,
        "channels": 10,
        "stride": (1, 16, 16),
        "tokenizer": {"name": "toy", "sha256": "3f9c" * 16},
        "preprocessing": {"fps": 8},
        "labels": ("ant", "bee"),
    }
    fingerprint = Fingerprint(**{**made, **changes})
    with open_part(path, fingerprint) as writer:
        for grid, count in counts.items():
            shape = (count, *grid, fingerprint.rounds, fingerprint.channels)
            planes = np.random.default_rng(count).integers(0, 2, shape, np.uint8)
            classes = np.arange(count) % max(1, len(fingerprint.labels))
            classes[:unlabelled] = -1
            records = [{"key": f"{grid}#{row}", "source": f"{grid}.png"} for row in range(count)]
            writer.append(grid, np.packbits(planes, axis=-1), classes, records)
        writer.commit(1, "0" * 64, 1)
        if finish:
            writer.finish()
    return path


def here(*arguments: object) -> Any:
    """``grn train-gen`` in this process, which spares the seconds that a process of its own takes to start."""
    return CliRunner().invoke(app, ["train-gen", *map(str, arguments)])


def succeed(*arguments: object) -> Any:
    result = here(*arguments, "training.steps=2")
    assert result.exit_code == 0, result.stderr
    return result


def sentence(result: Any) -> str:
    """The one line that a failed command says, which is none about a fault of grn."""
    (line,) = result.stderr.strip().splitlines()
    assert "a fault of grn itself" not in line
    return line


def settled(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "recipe.yaml").read_text())


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "waiting_share")} for line in lines]


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists() or not os.stat(path).st_size:
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)
