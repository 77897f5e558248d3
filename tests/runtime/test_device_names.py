"""Devices by name: what auto takes, which GPU a process of several takes, and names that no device has."""

import socket
from types import SimpleNamespace

import pytest
import torch

from grncli.calls.option_forms import device_name
from grncli.runtime.devices import pick_device, pick_dtype, require_own_gpus
from grncli.runtime.errors import UsageError
from grncli.runtime.processes import Processes


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


def test_a_process_takes_the_only_gpu_that_it_is_shown(present):
    present(cuda=1)
    assert pick_device("auto", 3) == torch.device("cuda:0")


def test_a_process_beyond_the_gpus_of_its_machine_is_told_how_many_there_are(present):
    present(cuda=2)
    with pytest.raises(UsageError, match=f"{socket.gethostname()} has 2 GPUs, and this is process 2 there"):
        pick_device("auto", 2)


@pytest.mark.parametrize("cuda", [0, 4])
@pytest.mark.parametrize("name", ["cuda:0,1", "cuda:0,cuda:1"])
def test_several_gpus_are_refused_with_the_commands_to_start_a_process_for_each(present, name, cuda):
    present(cuda=cuda)
    with pytest.raises(UsageError, match=f"^--device {name}: a process computes on one GPU") as caught:
        pick_device(name)
    assert "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc-per-node=2 -m grncli" in str(caught.value)
    assert "srun --ntasks=2 --gpus-per-task=1 grn" in str(caught.value)


def gathered(*others):
    """Processes of which this is the last, on a machine of its own unless it says otherwise."""

    class Fake(Processes):
        def gather_json(self, document):
            return [*({"host": "node1", "shown": 1, **other} for other in others), document]

    return Fake(len(others), len(others) + 1)


@pytest.fixture
def gpu(monkeypatch):
    """This process is on node1 and has the GPU of this number."""

    def pretend(uuid):
        monkeypatch.setattr(socket, "gethostname", lambda: "node1")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuid))

    return pretend


def test_processes_that_have_a_gpu_each_or_none_may_train_together(gpu):
    gpu("b")
    require_own_gpus(gathered({"gpu": "a"}, {"gpu": "b", "host": "node2"}), torch.device("cuda:0"))
    require_own_gpus(gathered({"gpu": None}), torch.device("cpu"))


def test_a_process_without_a_gpu_among_others_is_named_with_its_machine(gpu):
    gpu("b")
    with pytest.raises(UsageError, match=r"^process 1 of 3 on node2 has no GPU, and others have"):
        require_own_gpus(gathered({"gpu": "a"}, {"gpu": None, "host": "node2"}), torch.device("cuda:0"))
    with pytest.raises(UsageError, match=r"^process 1 of 2 on node1 has no GPU"):
        require_own_gpus(gathered({"gpu": "a"}), torch.device("cpu"))


def test_two_processes_on_one_gpu_are_refused(gpu):
    gpu("a")
    with pytest.raises(
        UsageError, match=r"^process 1 of 2 on node1 has the same GPU as process 0, of 1 that are shown"
    ):
        require_own_gpus(gathered({"gpu": "a"}), torch.device("cuda:0"))


def test_a_process_that_does_a_part_takes_the_gpu_of_its_number_too(present, monkeypatch):
    present(cuda=4)
    started = {"RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert [device_name(name) for name in (None, "cuda", "cuda:1", "cpu")] == ["cuda:2", "cuda:2", "cuda:1", "cpu"]


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
