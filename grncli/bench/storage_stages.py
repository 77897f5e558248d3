"""Speed of what lies between the networks: quantizing and packing, and writing and reading a bit store."""

import shutil
from pathlib import Path

import numpy as np
import torch

from grncli.bench.alternation import Work, ratio
from grncli.bench.limits import SYNCED, Machine
from grncli.bench.speeds import Limit, StageSpeed
from grncli.hbq import pack, quantize
from grncli.store import BitStore, Fingerprint, Grid, open_part, open_store

ROUNDS, CHANNELS = 4, 16
GRID: Grid = (1, 16, 16)  # 2 KiB a sample: a picture of 256x256 pixels
ROW = (*GRID, ROUNDS, CHANNELS // 8)
ROW_BYTES = int(np.prod(ROW))
SAMPLES = 1 << 14  # 32 MiB
APPENDED = 256  # samples that reach a store at once
READ = 64  # samples of a batch
FEATURES = (64, CHANNELS, 1, 64, 64)  # 16 MiB of float32

# Shares on two cores of an AMD EPYC with AVX-512.
PACKING_SHARE, WRITING_SHARE, READING_SHARE, RANDOM_SHARE = 0.05, 0.4, 0.5, 0.02


def storage_stages(machine: Machine) -> list[StageSpeed]:
    """Quantize and pack, store writes, whole chunks and random samples."""
    drawn = np.random.default_rng(0).integers(0, 256, (16, APPENDED, *ROW), dtype=np.uint8)
    places = [machine.folder / "written.zarr", machine.folder / "read.zarr"]
    write_store(places[1], drawn, SAMPLES)
    try:
        return [_packing(machine), _writing(machine, places[0], drawn), *_reading(machine, open_store(places[1]))]
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def drawn_fingerprint(rounds: int, channels: int, labels: tuple[str, ...] = ()) -> Fingerprint:
    """Of a store whose bits are drawn, not encoded."""
    return Fingerprint(rounds, channels, (4, 16, 16), {"name": "drawn", "sha256": "0" * 64}, {}, labels=labels)


def write_store(path: Path, drawn: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", samples: int) -> None:
    """A store of blocks ``[blocks, APPENDED, t, h, w, M, bytes]`` of random bits, each as often as it takes."""
    shutil.rmtree(path, ignore_errors=True)
    every = SYNCED // ROW_BYTES // APPENDED
    with open_part(path, drawn_fingerprint(ROUNDS, CHANNELS)) as writer:
        for number in range(samples // APPENDED):
            records = [{"key": f"{number}-{i}", "source": str(number)} for i in range(APPENDED)]
            writer.append(GRID, drawn[number % len(drawn)], None, records)
            if (number + 1) % every == 0:
                writer.commit(number + 1, "")
        writer.commit(samples // APPENDED, "")
        writer.finish()


def _packing(machine: Machine) -> StageSpeed:
    feature = torch.rand(FEATURES, device=machine.device) * 2 - 1
    read = feature.numel() * feature.itemsize
    moved = read + feature.numel() * ROUNDS / 8
    work = Work(read, machine.timed(lambda: pack(quantize(feature, ROUNDS), ROUNDS)))
    (own,), (copied,) = machine.compare([work], [(machine.copy, machine.copying())])
    return StageSpeed(
        name="quantize and pack",
        subject=f"float32 features, M = {ROUNDS}",
        value=float(np.median(own)) / machine.copy.scale,
        unit="GB/s",
        share=ratio(own, copied) * moved / read / 2,  # a copy moves each byte twice
        of=machine.copy.name,
        expected=PACKING_SHARE,
    )


def _writing(machine: Machine, path: Path, drawn: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> StageSpeed:
    size = SAMPLES * ROW_BYTES
    work = Work(size, lambda: write_store(path, drawn, SAMPLES))
    (own,), (plain,) = machine.compare([work], [(machine.disk, machine.writing(size))])
    return StageSpeed(
        name="store write",
        subject=f"{ROW_BYTES >> 10} KiB a sample, a commit every {SYNCED >> 20} MiB",
        value=float(np.median(own)) / machine.disk.scale,
        unit=machine.disk.unit,
        share=ratio(own, plain),
        of=machine.disk.name,
        expected=WRITING_SHARE,
    )


def _reading(machine: Machine, store: BitStore) -> list[StageSpeed]:
    view = store.grid(GRID)
    shuffled = np.random.default_rng(1).permutation(len(view))[: SAMPLES // 4]

    def chunks() -> None:
        for _ in view.chunks():
            pass

    def randomly() -> None:
        for start in range(0, len(shuffled), READ):
            view.read(shuffled[start : start + READ])

    works = [Work(len(view) * ROW_BYTES, chunks), Work(len(shuffled) * ROW_BYTES, randomly)]
    rates, (copied,) = machine.compare(works, [(machine.copy, machine.copying())])
    return [
        _read_stage("store read, chunks", "whole chunks, cached by the system", rates[0], copied, 1e9, "GB/s", machine),
        _read_stage(
            "store read, random",
            f"{ROW_BYTES >> 10} KiB a sample, {READ} at a time",
            rates[1],
            copied,
            1e3 * ROW_BYTES,
            "k samples/s",
            machine,
        ),
    ]


def _read_stage(
    name: str, subject: str, own: list[float], copied: list[float], scale: float, unit: str, machine: Machine
) -> StageSpeed:
    expected = RANDOM_SHARE if "random" in name else READING_SHARE
    limit: Limit = machine.copy
    value = float(np.median(own)) / scale
    return StageSpeed(
        name=name, subject=subject, value=value, unit=unit, share=ratio(own, copied), of=limit.name, expected=expected
    )
