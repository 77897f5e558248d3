"""Samples of ``grn sample --prompts`` as GenEval and VBench read them."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from grncli.decoding.outputs import file_name, fps_of
from grncli.decoding.store_decoding import check_fit
from grncli.media.writing import write_media
from grncli.runs.tokenizers import open_tokenizer
from grncli.runtime.errors import StoreError, UsageError
from grncli.runtime.files import MAX_NAME, whole_file
from grncli.runtime.folders import FolderMarker, inside, is_vacant, make_folder
from grncli.runtime.monitor import Monitor, Say
from grncli.runtime.stopping import Stopped
from grncli.sampling.pictures import BITS, decode_packed
from grncli.sampling.sample_store import samples_of
from grncli.store import BitStore, open_store
from grncli.text.prompts import Prompt, read_prompts, shortened

MANIFEST = "export.json"
METADATA = "metadata.jsonl"
NEEDED = ("tag", "prompt")  # fields of a prompt's metadata that GenEval always reads

Layout = Literal["geneval", "vbench"]


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark expects: pictures or clips, their number for each prompt, and that of prompts (None: any)."""

    name: str
    clips: bool
    per_prompt: int
    prompts: int | None


BENCHMARKS: dict[Layout, Benchmark] = {
    "geneval": Benchmark("GenEval", clips=False, per_prompt=4, prompts=553),
    "vbench": Benchmark("VBench", clips=True, per_prompt=5, prompts=None),
}


@dataclass(frozen=True)
class ExportSummary:
    """What ``export`` wrote; no ``files`` where an earlier run had written them all."""

    prompts: int
    files: int  # of samples; metadata.jsonl does not count
    present: int  # files of samples that an earlier run had written
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A sample, the number and text of its prompt, and its file below the folder."""

    index: int
    record: dict[str, Any]
    prompt: int
    text: str
    file: PurePosixPath


Write = Callable[[Entry, Path], None]


def export(
    samples: Path,
    folder: Path,
    layout: Layout,
    *,
    prompts: Path | None = None,
    tokenizer: str | None = None,
    device: str = "cpu",
    monitor: Monitor | None = None,
) -> ExportSummary:
    """Lay samples out in ``folder`` as a benchmark's own evaluation reads them; resumes an interrupted export.

    Parameters
    ----------
    samples : folder of pictures or clips, which are linked or else copied, or a bit store to decode
    prompts : the file the samples were made with; GenEval's metadata come from it
    tokenizer : run of the tokenizer that made the bits, for a bit store only

    Raises
    ------
    Stopped
        If ``monitor`` asked for it; files written so far are whole.
    UsageError, StoreError, CheckpointError
        Before anything is written, where the samples, the prompts or ``folder`` do not fit.
    """
    monitor = monitor or Monitor()
    store = _open(samples, tokenizer)
    entries = _entries(store, layout)
    listed = _checked_prompts(prompts, entries, layout)
    write = _linker(samples, entries) if tokenizer is None else _decoder(store, tokenizer, device, monitor.say)
    _claim(folder, layout, store, listed)
    if layout == "geneval":
        _write_metadata(folder, entries, listed)
    files = _write_samples(folder, entries, write, monitor)
    counts = Counter(entry.prompt for entry in entries)
    return ExportSummary(len(counts), files, len(entries) - files, _warnings(BENCHMARKS[layout], counts))


def manifest_path(folder: Path, layout: Layout) -> Path:
    """Path of the manifest, which says what an export is made from.

    Inside the folder, but for VBench beside it: VBench takes the suffix of whatever a folder lists first for that of
    all clips, and finds none where this is another file.
    """
    whole = folder.resolve()
    return whole / MANIFEST if layout == "geneval" else whole.parent / f"{whole.name}.{MANIFEST}"


def _open(samples: Path, tokenizer: str | None) -> BitStore:
    pictures = (samples / BITS).is_dir()
    if pictures and tokenizer is not None:
        raise UsageError(f"{samples} holds pictures that need no --tokenizer; leave it out, or give {samples / BITS}")
    store = open_store(samples / BITS if pictures else samples)
    if not pictures and tokenizer is None:
        raise UsageError(f"{samples} is a bit store, expected --tokenizer RUN with it, or a folder of pictures")
    if not store.complete:
        raise StoreError(f"{store.path} is not complete ({len(store)} samples so far); finish it first")
    return store


def _entries(store: BitStore, layout: Layout) -> list[Entry]:
    """The samples of a store, by number; UsageError where they are not what the benchmark takes."""
    for record in store.records():
        if not isinstance(record.get("prompt"), str) or not isinstance(record.get("prompt_number"), int):
            raise UsageError(
                f"{store.path}: sample {record['key']} has no prompt, expected samples of grn sample --prompts"
            )
    if not len(store):
        raise UsageError(f"{store.path} has no samples, expected those of grn sample --prompts")
    _check_kind(store, BENCHMARKS[layout])
    entries = []
    within: Counter[int | str] = Counter()
    for index, record, _ in samples_of(store):
        number, text = record["prompt_number"], record["prompt"]
        # VBench's own list has prompts twice, and one name for both.
        counted = number if layout == "geneval" else text
        file = _geneval_file(number, within[counted]) if layout == "geneval" else _vbench_file(text, within[counted])
        entries.append(Entry(index, record, number, text, file))
        within[counted] += 1
    return entries


def _check_kind(store: BitStore, benchmark: Benchmark) -> None:
    kinds = ("single pictures", "clips")
    if any((grid[0] > 1) != benchmark.clips for grid in store.grids):
        there, expected = kinds[not benchmark.clips], kinds[benchmark.clips]
        raise UsageError(f"{store.path} has {there}, and {benchmark.name} is for {expected}; give samples of those")


def _geneval_file(prompt: int, within: int) -> PurePosixPath:
    return PurePosixPath(f"{prompt:05d}", "samples", f"{within:04d}.png")


def _vbench_file(text: str, within: int) -> PurePosixPath:
    name = f"{text}-{within}.mp4"
    if "/" in text or "\0" in text or len(os.fsencode(name)) > MAX_NAME:
        raise UsageError(
            f"the prompt {shortened(text)} cannot be the name of a file, as VBench wants it; expected one without a "
            f"slash and with at most {MAX_NAME} bytes in {{prompt}}-{{index}}.mp4"
        )
    return PurePosixPath(name)


def _checked_prompts(path: Path | None, entries: Sequence[Entry], layout: Layout) -> list[Prompt]:
    """The prompts of the file, none without one; UsageError where the samples were made with others."""
    if path is None:
        if layout == "geneval":
            raise UsageError("geneval needs --prompts FILE, the evaluation_metadata.jsonl the samples were made with")
        return []
    prompts = read_prompts(path)
    for entry in entries:
        listed = prompts[entry.prompt] if entry.prompt < len(prompts) else None
        if listed is None or listed.text != entry.text:
            there = (
                f"{path} has {len(prompts)} prompts" if listed is None else f"{listed.place}: {shortened(listed.text)}"
            )
            raise UsageError(
                f"{there}, but prompt {entry.prompt} of the samples is {shortened(entry.text)}; "
                "give the file that they were made with"
            )
        missing = [key for key in NEEDED if key not in listed.metadata]
        if layout == "geneval" and missing:
            raise UsageError(
                f"{listed.place}: has no {' and no '.join(missing)}, expected a line of evaluation_metadata.jsonl"
            )
    return prompts


def _linker(folder: Path, entries: Sequence[Entry]) -> Write:
    """A function that links a sample's file to its place, or copies it from another file system."""

    def source(entry: Entry) -> Path:
        return folder / file_name(entry.record, entry.file.suffix)

    def write(entry: Entry, target: Path) -> None:
        with whole_file(target) as temporary:
            temporary.unlink(missing_ok=True)
            # A symbolic link would itself get the second name.
            path = source(entry).resolve()
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)

    for path in map(source, entries):
        if not path.is_file():
            raise UsageError(f"{path} is missing; run the same grn sample again, which writes it")
    return write


def _decoder(store: BitStore, run: str, device: str, say: Say) -> Write:
    loaded = open_tokenizer(run, say=say)
    rounds = check_fit(store, store.path, loaded, None)
    tokenizer = loaded.network.to(device)

    def write(entry: Entry, target: Path) -> None:
        frames = decode_packed(tokenizer, store[entry.index].bits, rounds)
        write_media(target, frames, fps_of(entry.record))

    return write


def _claim(folder: Path, layout: Layout, store: BitStore, prompts: Sequence[Prompt]) -> None:
    """Make the folder and write its manifest; UsageError where it holds something else."""
    metadata = json.dumps([prompt.metadata for prompt in prompts]) if layout == "geneval" else ""
    manifest = {"layout": layout, "samples": store.digest(), "metadata": sha256(metadata.encode()).hexdigest()}
    marker = FolderMarker(
        folder=folder,
        file=manifest_path(folder, layout),
        command="grn eval export",
        purpose="a folder to export into",
        remedy="choose another DIR",
        replaceable=False,
    )
    if is_vacant(folder):  # beside an emptied folder of VBench, the manifest may be left
        folder.mkdir(parents=True, exist_ok=True)
        marker.write(manifest)
    marker.require(manifest)


def _write_metadata(folder: Path, entries: Sequence[Entry], prompts: Sequence[Prompt]) -> None:
    for number in sorted({entry.prompt for entry in entries}):
        file = folder / f"{number:05d}" / METADATA
        if not file.exists():
            make_folder(file.parent)
            with whole_file(file) as temporary:
                temporary.write_text(json.dumps(prompts[number].metadata) + "\n", encoding="utf-8")


def _write_samples(folder: Path, entries: Sequence[Entry], write: Write, monitor: Monitor) -> int:
    """Write the files that are not there; returns how many those were."""
    written = 0
    for done, entry in enumerate(entries):
        if monitor.stop_reason:
            raise Stopped(f"{monitor.stop_reason}: stopped after {done} of {len(entries)} samples")
        target = inside(folder, str(entry.file), create=True)
        if not target.exists():
            write(entry, target)
            written += 1
        monitor.progress(done + 1, len(entries), "")
    return written


def _warnings(benchmark: Benchmark, counts: Counter[int]) -> tuple[str, ...]:
    """A sentence for each number of samples or prompts that differs from the benchmark's."""
    few, most = min(counts.values()), max(counts.values())
    warnings = []
    if (few, most) != (benchmark.per_prompt, benchmark.per_prompt):
        counted = f"{few}" if few == most else f"{few} to {most}"
        warnings.append(f"{benchmark.per_prompt} samples a prompt expected by {benchmark.name}, found {counted}")
    if benchmark.prompts not in (None, len(counts)):
        warnings.append(f"{benchmark.prompts} prompts expected by {benchmark.name}, found {len(counts)}")
    return tuple(warnings)
