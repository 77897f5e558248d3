"""Several processes that do not meet, or cannot work together: a sentence that says why, and nothing is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from grncli.runtime import group_faults

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


def fails(error: Exception) -> Callable[..., None]:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    return fail


def test_processes_that_do_not_meet_say_so(
    grn_inside: Callable, media_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_of_two: None
) -> None:
    timed_out = dist.DistNetworkError("The client socket has timed out after 600000ms")
    monkeypatch.setattr(dist, "TCPStore", fails(timed_out))
    line = sentence(train(grn_inside, media_dir, tmp_path))
    assert all(words in line for words in ("2 processes could not connect at tcp://node7:29511", "MASTER_PORT")), line


def test_a_connection_that_breaks_while_all_live_is_a_matter_of_the_network(
    grn_inside: Callable, media_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_of_two: None
) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(group_faults, "LOOK_SECONDS", 0.02)
    broken = dist.DistBackendError("NCCL error: remote process exited")
    monkeypatch.setattr(dist, "init_process_group", fails(broken))
    line = sentence(train(grn_inside, media_dir, tmp_path))
    assert "the connection to another of the 2 processes broke (NCCL error: remote process exited)" in line


def train(grn_inside: Callable, media: Path, folder: Path) -> Any:
    (folder / "tiny.yaml").write_text(RECIPE)
    done = grn_inside("train-tokenizer", folder / "tiny.yaml", "--data", media, "--out", folder / "run")
    assert not (folder / "run").exists()
    return done


def sentence(done: Any) -> str:
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    return line


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
