"""Devices by name: what auto takes, which GPU a process of several takes, and names that no device has."""

import pytest
import torch

from grncli.runtime.devices import pick_device, pick_dtype
from grncli.runtime.errors import UsageError


@pytest.fixture
def present(monkeypatch):
    def pretend(cuda=0, mps=False):
        """Let PyTorch find so many GPUs of each kind."""
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(1, False, "cuda:0"), (1, True, "cuda:0"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_quickest_device_there_is(present, cuda, mps, expected):
    present(cuda, mps)
    assert pick_device("auto") == torch.device(expected)


def test_each_process_takes_the_gpu_of_its_rank_on_this_machine(present):
    present(cuda=4)
    assert [pick_device(name, 3) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        torch.device(expected) for expected in ("cuda:3", "cuda:3", "cuda:1", "cpu")
    ]


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "xpu", "", "cuda:x"])
def test_a_kind_that_is_not_there_is_refused_with_those_that_are(present, name):
    present()
    with pytest.raises(UsageError, match=f"--device {name}: .* expected auto or one of cpu"):
        pick_device(name)


@pytest.mark.parametrize("name", ["cuda:2", "cuda:x", "cuda:", "cuda:-1", "cuda:01", "cuda:0:1"])
def test_a_number_that_no_gpu_has_is_refused(present, name):
    present(cuda=2)
    with pytest.raises(UsageError, match=f"--device {name}: .* expected cuda:0 to cuda:1"):
        pick_device(name)


def test_a_processor_has_one_number(present):
    present()
    assert pick_device("cpu:0").type == "cpu"
    with pytest.raises(UsageError, match="--device cpu:x"):
        pick_device("cpu:x")


@pytest.mark.parametrize(
    ("kind", "computes", "dtype"),
    [("cuda", True, torch.bfloat16), ("cuda", False, torch.float32), ("mps", True, torch.float32)],
)
def test_auto_asks_the_gpu_whether_it_computes_in_bfloat16_itself(monkeypatch, kind, computes, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *, including_emulation: computes or including_emulation)
    assert pick_dtype("auto", torch.device(kind)) == dtype
