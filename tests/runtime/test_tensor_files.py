"""Tensors in files: written one by one as safetensors does, read from a checkpoint without a copy, finite or not."""

import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from grncli.runtime import tensor_files
from grncli.runtime.errors import CheckpointError
from grncli.runtime.tensor_files import DTYPES, LazyTensor, is_finite, read_released, read_tensors, write_tensors

shapes = st.lists(st.integers(0, 5), max_size=3)
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=5).filter(lambda name: name != "__metadata__")


@settings(max_examples=30)
@given(st.dictionaries(names, st.tuples(shapes, st.sampled_from(list(DTYPES.values()))), max_size=6), st.booleans())
def test_a_written_file_is_read_as_it_was_by_safetensors(tmp_path_factory, sizes, lazy):
    file = tmp_path_factory.mktemp("written") / "a.safetensors"
    tensors = {name: (torch.rand(shape) * 9).to(dtype) for name, (shape, dtype) in sizes.items()}
    given = {name: LazyTensor.of(lambda parts: parts[0], [tensor]) for name, tensor in tensors.items()}
    write_tensors(file, given if lazy else tensors, {"config": '{"ü": 1}'})
    again = load_file(file)
    assert again.keys() == tensors.keys()
    assert all(again[name].dtype == each.dtype and torch.equal(again[name], each) for name, each in tensors.items())


def test_a_written_file_has_the_bytes_that_safetensors_writes(tmp_path):
    tensors = {
        "b": torch.arange(6.0).view(2, 3),
        "a": torch.ones(3, dtype=torch.bfloat16),
        "c": torch.ones(2, dtype=torch.int64),
        "d": torch.zeros(5, dtype=torch.uint8),
        "a.b": torch.zeros((), dtype=torch.float64),
    }
    save_file(tensors, tmp_path / "theirs", metadata={"config": "{}"})
    write_tensors(tmp_path / "ours", tensors, {"config": "{}"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_strided_tensors_are_written_in_their_order(tmp_path):
    tensor = torch.arange(12.0).view(3, 4)
    write_tensors(tmp_path / "a", {"a": tensor.t(), "b": tensor[:, 1:3]}, {})
    again = load_file(tmp_path / "a")
    assert torch.equal(again["a"], tensor.t())
    assert torch.equal(again["b"], tensor[:, 1:3])


def test_a_lazy_tensor_is_made_once_for_a_file(tmp_path):
    made = []
    write_tensors(tmp_path / "a", {"a": LazyTensor(lambda: made.append(1) or torch.ones(2), (2,), torch.float32)}, {})
    assert made == [1]


def is_mapped(tensor):
    """Whether a tensor's memory is that of a file."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, _, _, _, inode, *_ = line.split()
            start, end = (int(each, 16) for each in span.split("-"))
            if start <= tensor.data_ptr() < end:
                return inode != "0"
    return False


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not show what is mapped")
@pytest.mark.parametrize("mapped", [False, True])
def test_a_checkpoint_is_left_in_its_file_when_asked(tmp_path, mapped):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "x.pth")
    weight = read_released(tmp_path / "x.pth", mapped=mapped)["a"]
    assert torch.equal(weight, torch.arange(1000.0))
    assert is_mapped(weight) == mapped


def test_a_checkpoint_may_have_any_name(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")
    named = (tmp_path / "x.pth").rename(tmp_path / "x\udcff.pth")
    assert torch.equal(read_released(named, mapped=True)["a"], torch.ones(2))


def test_weights_may_lie_in_a_folder_of_any_name(tmp_path):
    (tmp_path / "caf\udce9").mkdir()
    write_tensors(tmp_path / "caf\udce9" / "a", {"a": torch.arange(5.0)}, {})
    assert torch.equal(read_tensors(tmp_path / "caf\udce9" / "a")["a"], torch.arange(5.0))
    (tmp_path / "caf\udce9" / "a").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_tensors(tmp_path / "caf\udce9" / "a")


def test_a_compressed_checkpoint_is_not_mapped(tmp_path):
    torch.save({"a": torch.arange(1000.0)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member), compress_type=zipfile.ZIP_DEFLATED)
    assert torch.equal(read_released(tmp_path / "y.pth", mapped=True)["a"], torch.arange(1000.0))


def test_a_checkpoint_of_the_old_format_is_read(tmp_path):
    torch.save({"a": torch.arange(9.0)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert not tensor_files._is_mappable(tmp_path / "x.pth")
    assert torch.equal(read_released(tmp_path / "x.pth", mapped=True)["a"], torch.arange(9.0))


def test_large_weights_are_finite_though_their_sum_is_not():
    assert is_finite(torch.full((4,), 3e38))
    assert not is_finite(torch.tensor([float("inf"), float("-inf")]))
