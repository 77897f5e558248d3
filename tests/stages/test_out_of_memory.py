"""Pictures that do not fit into memory: smaller batches first, then a sentence, and the others are encoded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from grncli import open_store
from grncli.media.writing import write_png
from grncli.models.tokenizer import Tokenizer


@pytest.fixture
def sources(draw_picture: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    for number in range(4):
        write_png(tmp_path / "src" / f"{number}.png", draw_picture(number))
    write_png(tmp_path / "src" / "wide.png", draw_picture(4, 16, 32))
    return tmp_path / "src"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Exception], None]:
    encode = Tokenizer.encode

    def limit(pixels: int, error: Exception) -> None:
        """Let the tokenizer take so many pixels at once, and raise ``error`` for more."""

        def limited(network: Tokenizer, x: Tensor, *arguments: Any) -> Tensor:
            if x[:, 0].numel() > pixels:
                raise error
            return encode(network, x, *arguments)

        monkeypatch.setattr(Tokenizer, "encode", limited)

    return limit


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried 64 GiB"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["device", "processor", "python"])
def test_a_batch_that_does_not_fit_is_encoded_one_by_one(
    grn_inside: Callable, sources: Path, run_dir: Path, tmp_path: Path, memory: Callable, error: Exception
) -> None:
    command = ("tokenize", sources, "--tokenizer", run_dir, "--workers", 0, "--batch", 4)
    grn_inside(*command[:2], tmp_path / "whole.zarr", *command[2:])
    memory(16 * 32, error)
    done = grn_inside(*command[:2], tmp_path / "s.zarr", *command[2:])
    assert done.returncode == 0, done.stderr
    ours, theirs = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "whole.zarr")
    assert list(ours.records()) == list(theirs.records())
    differing = [np.unpackbits(ours[i].bits ^ theirs[i].bits).mean() for i in range(len(theirs))]
    assert max(differing) < 0.01  # a feature at the edge of its bucket may fall to the other side


def test_a_lone_picture_that_does_not_fit_is_named_and_the_others_are_encoded(
    grn_inside: Callable, sources: Path, run_dir: Path, tmp_path: Path, memory: Callable
) -> None:
    memory(16 * 16, ERRORS[0])
    done = grn_inside("tokenize", sources, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert done.returncode == 0, done.stderr
    assert "wide.png: 32x16 pixels do not fit into memory; give a smaller --size" in done.stderr
    store = open_store(tmp_path / "s.zarr")
    assert [record["key"] for record in store.records()] == ["0.png", "1.png", "2.png", "3.png"]
    assert [Path(line["source"]).name for line in store.failures()] == ["wide.png"]


def test_another_error_of_the_network_ends_the_run(
    grn_inside: Callable, sources: Path, run_dir: Path, tmp_path: Path, memory: Callable
) -> None:
    memory(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    done = grn_inside("tokenize", sources, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert done.returncode == 1
    assert "shapes cannot be multiplied" in done.stderr
