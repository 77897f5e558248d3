"""What is called slow, by rules about what a machine has."""

from dataclasses import replace

import pytest

from grncli.machine.computing_devices import DeviceState, ProcessorState, unused_gpu
from grncli.machine.examination import Examination
from grncli.machine.slow_reasons import slow_reasons
from grncli.machine.system_limits import DiskState, MemoryState

DISK = DiskState("/data", 100 << 30, 50 << 30, "ext4")
FAST = Examination(
    versions={},
    packages=[],
    processor=ProcessorState(
        name="Fast",
        architecture="x86_64",
        cores=8,
        quota=None,
        threads=8,
        threads_set_by=None,
        load=0.1,
        instructions=("AVX2", "AVX-512", "AVX-512 BF16"),
        onednn_products=False,
    ),
    devices=[DeviceState("cpu", "", "bfloat16"), DeviceState("cuda:0", "GPU", "bfloat16", 80 << 30, 79 << 30)],
    unused_gpu=None,
    memory=MemoryState(64 << 30, 60 << 30, None),
    folder=DISK,
    cache=DISK,
    temporary=DISK,
    ffmpeg={},
    weights=[],
    checksums="c",
    problems=[],
)


def on_processor(**changes):
    return replace(FAST, devices=FAST.devices[:1], processor=replace(FAST.processor, **changes))


def with_gpu(**changes):
    return replace(FAST, processor=replace(FAST.processor, **changes))


def test_a_fast_machine_has_no_reason():
    assert slow_reasons(FAST) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (on_processor(), ["There is no GPU"]),
        (replace(on_processor(), unused_gpu="why"), ["cannot use it: why."]),
        (on_processor(instructions=("AVX2", "AVX-512")), ["no GPU", "does not multiply bfloat16"]),
        (on_processor(instructions=("AVX2",)), ["no GPU", "bfloat16", "not AVX-512"]),
        (on_processor(instructions=("NEON", "BF16")), ["no GPU"]),
        (with_gpu(instructions=("AVX2",)), []),
        (with_gpu(instructions=None), ["too old"]),
        (with_gpu(threads=64, quota=1.5), ["64 threads, but may keep only 1.5 cores busy"]),
        (with_gpu(threads=16), ["set OMP_NUM_THREADS=8"]),
        (with_gpu(threads=1, threads_set_by="OMP_NUM_THREADS=1"), ["1 of 8 cores, as OMP_NUM_THREADS=1 says"]),
        (with_gpu(threads=4), []),  # half of what hyper-threading shows, by PyTorch's own choice
        (with_gpu(load=6.2), ["6.2 processes shared its 8 cores"]),
        (replace(FAST, memory=MemoryState(64 << 30, 1 << 30, 2 << 30)), ["Only 1.1 GB of memory"]),
        (replace(FAST, memory=MemoryState(None, None, None)), []),
        (replace(FAST, folder=replace(DISK, free=1 << 30)), ["Only 1.1 GB are free for stores and runs in /data"]),
        (replace(FAST, temporary=replace(DISK, free=1 << 30)), ["temporary files"]),
        (replace(FAST, folder=replace(DISK, file_system="nfs4")), ["/data lies on nfs4, a network file system"]),
        (replace(FAST, checksums="python"), ["google-crc32c"]),
    ],
)
def test_each_reason_has_its_sentence(found, words):
    reasons = slow_reasons(found)
    assert len(reasons) == len(words)
    assert all(word in reason for word, reason in zip(words, reasons, strict=True))


@pytest.mark.parametrize(
    ("available", "cuda", "variables", "words"),
    [
        (True, "13.0", {}, None),
        (False, None, {}, "built without CUDA"),
        (False, "13.0", {"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES hides it"),
        (False, "13.0", {}, "the driver is too old"),
    ],
)
def test_a_gpu_that_is_not_used_has_a_reason(monkeypatch, tmp_path, available, cuda, variables, words):
    def fail():
        raise RuntimeError("the driver is too old.\nmore")

    monkeypatch.setattr("torch.cuda.is_available", lambda: available)
    monkeypatch.setattr("torch.cuda.init", fail)
    monkeypatch.setattr("torch.version.cuda", cuda)
    assert unused_gpu(variables, tmp_path) is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM")
    reason = unused_gpu(variables, tmp_path)
    assert (reason is None) if words is None else (words in reason)
    assert not (reason or "").endswith(".")
