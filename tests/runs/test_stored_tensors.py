"""Tensors in shards are read as those of one file are: any part of them, the same bytes, the same hash."""

from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grncli.runs.checkpoint import (
    begin_checkpoint,
    finish_checkpoint,
    header_of,
    list_checkpoints,
    write_checkpoint,
    write_shard,
)
from grncli.runs.describing import describe
from grncli.runs.generators import open_generator
from grncli.runs.loading import open_run
from grncli.runs.registry import KINDS
from grncli.runs.rundir import recipe_kind
from grncli.runs.stored_tensors import check_checkpoint, open_stored
from grncli.runs.tokenizers import identify_tokenizer, open_tokenizer
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.tensor_files import open_tensors, sha256_of

CONFIG = {"width": 4}
KIND_OF = {kind.name: kind for kind in KINDS}


def write_in_shards(run, step, tensors, count, config=CONFIG, dim=0):
    """A checkpoint of ``count`` processes, which have whole tensors in parts along one dimension."""
    partial = begin_checkpoint(run, step)
    header = {**header_of(config), "step": str(step)}
    shards = {}
    for file, named in tensors.items():
        shards[file] = {}
        for rank in range(count):
            written = write_shard(partial / file, rank, own_parts(named, rank, count, dim), header)
            shards[file] |= {name: asdict(record) for name, record in written.items()}
    counts = {file: len(named) for file, named in tensors.items()}
    return finish_checkpoint(partial, {"step": step, "tensors": counts, "shards": shards})


def own_parts(named, rank, count, dim):
    parts = {}
    for name, tensor in named.items():
        if tensor.dim() <= dim:
            if rank == 0:
                parts[name] = ((0,) * tensor.dim(), tensor)
            continue
        chunks = tensor.chunk(count, dim)
        if rank < len(chunks):
            offset = sum(chunk.shape[dim] for chunk in chunks[:rank])
            parts[name] = (tuple(offset if axis == dim else 0 for axis in range(tensor.dim())), chunks[rank])
    return parts


def drawn(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(7, 3, generator=draw),
        "low": torch.randn(5, 2, 4, generator=draw).bfloat16(),
        "row": torch.randn(1, generator=draw),
        "step": torch.tensor(17.0),
    }


@pytest.mark.parametrize(("count", "dim"), [(1, 0), (2, 0), (3, 0), (9, 0), (2, 1)])
def test_tensors_and_hash_are_those_of_the_one_file(tmp_path, count, dim):
    tensors = drawn()
    whole = write_checkpoint(tmp_path / "whole", 3, {"ema": tensors}, {"step": 3}, CONFIG)
    checkpoint = write_in_shards(tmp_path / "run", 3, {"ema": tensors}, count, dim=dim)
    assert check_checkpoint(checkpoint).step == 3
    with open_stored(checkpoint, "ema") as stored:
        assert stored.sha256() == sha256_of(whole / "ema.safetensors")
        assert {name: (size.shape, size.dtype) for name, size in stored.sizes.items()} == {
            name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()
        }
        assert all(torch.equal(stored.read(name), tensor) for name, tensor in tensors.items())
    with open_tensors(whole / "ema.safetensors") as opened:
        assert stored.metadata == opened.metadata()


@given(count=st.integers(1, 8), low=st.integers(0, 7), high=st.integers(0, 7), column=st.integers(0, 2))
def test_any_part_is_put_together_from_the_shards_that_overlap_it(tmp_path_factory, count, low, high, column):
    low, high = sorted((low, high))
    tensors = drawn()
    run = tmp_path_factory.getbasetemp() / f"parts-{count}"
    checkpoint = next(iter(list_checkpoints(run)), None) or write_in_shards(run, 1, {"ema": tensors}, count)
    with open_stored(checkpoint, "ema") as stored:
        part = stored.read("matrix", (low, column), (high - low, 3 - column))
    assert torch.equal(part, tensors["matrix"][low:high, column:])


def test_shards_replaced_while_they_are_read_are_not_hashed(tmp_path):
    checkpoint = write_in_shards(tmp_path, 1, {"ema": drawn()}, 2)
    with open_stored(checkpoint, "ema") as stored:
        file = checkpoint / "ema/rank-00001.safetensors"
        file.with_suffix(".new").write_bytes(file.read_bytes())
        file.with_suffix(".new").replace(file)
        with pytest.raises(CheckpointError, match=r"rank-00001\.safetensors: was replaced while it was read"):
            stored.sha256()


# Runs


def reshard(run, count, names=("ema",)):
    """Add a checkpoint of step 1 in shards to a run, with the weights of its newest one under all these names."""
    loaded = open_run(run, KIND_OF[recipe_kind(run)], say=print)
    weights = loaded.network.state_dict()
    return write_in_shards(run, 1, dict.fromkeys(names, weights), count, asdict(loaded.network.config))


@pytest.fixture
def tokenizers(make_run, tmp_path):
    """A tokenizer's run in one file, and the same in three shards."""
    whole, run = (make_run(tmp_path / folder / "tok") for folder in ("whole", "sharded"))
    reshard(run, 3)
    return whole, run


def test_a_run_in_shards_opens_as_that_in_one_file_with_the_same_identity(tokenizers):
    whole, run = map(open_tokenizer, tokenizers)
    assert run.checkpoint.name == "step-00000001"
    assert run.identity == whole.identity == identify_tokenizer(tokenizers[1]).identity
    assert open_tokenizer(run.checkpoint).identity["sha256"] == whole.identity["sha256"]
    theirs = whole.network.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in run.network.state_dict().items())


def test_a_run_in_shards_is_described_and_verified(tokenizers):
    whole, run = tokenizers
    assert describe(run)["sha256"] == describe(whole)["sha256"]
    assert describe(run, verify=True)["problems"] == []
    assert describe(run / "checkpoints/latest")["step"] == 1
    (run / "checkpoints/step-00000001/ema/rank-00002.safetensors").unlink()
    (problem,) = describe(run, verify=True)["problems"]
    assert "rank-00002.safetensors: cannot be read (No such file or directory), expected one of the 3 shards" in problem


def test_sizes_in_the_headers_of_shards_are_compared_with_the_recipe(tokenizers):
    run = tokenizers[1]
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("attention: true", "attention: false"))
    with pytest.raises(CheckpointError, match=r"/ema: was made with network\.attention=True"):
        open_tokenizer(run)


def test_each_average_in_shards_can_be_loaded(make_generator_run, tokenizers, tmp_path):
    run = make_generator_run(tmp_path / "run", tokenizers[1])
    reshard(run, 2, ("ema", "ema2", "weights", "optimizer"))
    assert open_generator(run, "ema2").identity == open_generator(run).identity
    with pytest.raises(UsageError, match="has no weights called ema3, expected one of ema, ema2, weights"):
        open_generator(run, "ema3")
