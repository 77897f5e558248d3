"""Several processes of which one is missing: a sentence that says where they were to meet, and exit code 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

RECIPE = """\
kind: tokenizer
network: {channels: 4, encoder_width: 4, decoder_width: 4, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: [1]}
data: {image: {size: 16, batch: 4}, workers: 0}
training: {steps: 1}
"""


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of torchrun's first process of two."""
    launch = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "node7", "MASTER_PORT": 29511}
    for name, value in launch.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (dist.DistNetworkError("The client socket has timed out after 600000ms"), ("2 processes", "MASTER_PORT")),
        (dist.DistBackendError("NCCL error: remote process exited"), ("another of the 2 processes",)),
    ],
)
def test_processes_that_do_not_meet_say_so(
    grn_inside: Callable,
    media_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_of_two: None,
    error: Exception,
    words: tuple[str, ...],
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(dist, "init_process_group", fail)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    done = grn_inside("train-tokenizer", tmp_path / "tiny.yaml", "--data", media_dir, "--out", tmp_path / "run")
    assert done.returncode == 1
    (sentence,) = done.stderr.strip().splitlines()
    assert all(word in sentence for word in words), sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("tokenize", "src", "s.zarr", "--tokenizer", "tok"),
        ("sample", "gen", "s.zarr"),
        ("decode", "s.zarr", "out", "--tokenizer", "tok"),
        ("import", "file.ckpt", "run"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_of_one_process_is_refused_to_several(
    grn_inside: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_of_two: None, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = grn_inside(*command)
    assert done.returncode == 2
    assert "2 processes" in done.stderr
    assert not list(tmp_path.iterdir())
