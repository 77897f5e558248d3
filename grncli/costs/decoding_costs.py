"""What ``grn decode`` would take: some batches are decoded, and their files written to a folder that is removed."""

import random
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from grncli.costs.run_costs import DiskNeed, RunCosts
from grncli.costs.trials import Clock, MemoryWatch
from grncli.decoding.comparing import SourceFrames
from grncli.decoding.outputs import folder_settings, listed_samples, written_samples
from grncli.decoding.shards import selection
from grncli.decoding.store_decoding import DecodeSettings, StoreDecoder, open_outputs, open_selected
from grncli.machine.system_limits import disk
from grncli.runtime.devices import DTYPES
from grncli.runtime.monitor import Monitor
from grncli.runtime.overlap import BackgroundWriter
from grncli.store import BitStore, Grid


def decoding_costs(
    path: Path, folder: Path, run: str | Path, settings: DecodeSettings, *, monitor: Monitor | None = None
) -> RunCosts:
    """What is left to decode into ``folder``, which is not touched; files and seconds go by their pixels.

    Raises
    ------
    GrnError
        Where store, tokenizer, options and what the folder holds do not fit.
    """
    monitor = monitor or Monitor()
    watch = MemoryWatch(torch.device(settings.device))
    store, loaded, rounds, indices = open_selected(path, run, settings, monitor)
    if settings.compare is not None:
        SourceFrames(settings.compare, store)  # refuses what the run would
    missing = len(indices) - len(_present(folder, store, rounds, indices, settings).intersection(indices))
    # What is compared or shown is decoded again, also where its file is there.
    left = missing if settings.compare is None and settings.sheet is None else len(indices)
    network = loaded.network.to(settings.device)
    decoder = StoreDecoder(store, network, rounds, settings.batch, settings.device, DTYPES[settings.dtype])
    batches = list(decoder.batched(indices))
    of_grid = _pixels_of_grids(store)
    pixels = sum(of_grid[store.grid_of(rows[0])] * len(rows) for rows in batches)
    clock, size, tried = Clock("megapixels"), 0, 0
    random.Random(0).shuffle(batches)
    with tempfile.TemporaryDirectory() as place, BackgroundWriter() as writer:
        outputs = open_outputs(Path(place), store, rounds, range(len(store)), _a_file_each(settings))
        with outputs:
            for rows in batches if left else ():
                frames = decoder.decode(decoder.read(rows))
                for index, record, own in zip(rows, store.records(rows), frames, strict=True):
                    writer.submit(partial(outputs.write, index, record, own))
                tried += of_grid[store.grid_of(rows[0])] * len(rows)
                clock.mark(of_grid[store.grid_of(rows[0])] * len(rows) / 1e6)
                if clock.is_over or monitor.stop_reason:
                    break
            writer.wait()
        entries = [entry for _, entry in listed_samples(Path(place))]
        size = sum(entry["end"] if "end" in entry else Path(place, entry["file"]).stat().st_size for entry in entries)
    share, rate, space = left / len(indices), clock.rate(), disk(folder)
    return RunCosts(
        command="decode",
        counts={"samples": left, "megapixels": round(pixels * share / 1e6)},
        seconds=0.0 if not left else None if rate is None else rate.seconds_for(pixels * share / 1e6),
        rates=[] if rate is None else [rate],
        memory=watch.use(),
        disk=DiskNeed(
            written=round(size * pixels * missing / len(indices) / tried) if missing else 0,
            free=space.free,
            place=space.path,
        ),
        notes=["reading the sources again to compare is not counted"] if settings.compare is not None else [],
    )


def _pixels_of_grids(store: BitStore) -> dict[Grid, int]:
    time, height, width = store.stride
    return {grid: (1 + time * (grid[0] - 1)) * height * grid[1] * width * grid[2] for grid in store.grids}


def _present(folder: Path, store: BitStore, rounds: int, indices: range, settings: DecodeSettings) -> set[int]:
    """Samples that an earlier run has written."""
    selected = None if settings.form.shard_size is None else selection(indices)
    asked = folder_settings(store, rounds, settings.form, dtype=settings.dtype, selected=selected)
    return written_samples(folder, asked, overwrite=settings.overwrite)


def _a_file_each(settings: DecodeSettings) -> DecodeSettings:
    """Samples that are drawn at random fill no shard in order: each gets one, whose end is not counted."""
    form = settings.form
    return settings if form.shard_size is None else replace(settings, form=replace(form, shard_size=1))
