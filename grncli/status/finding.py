"""The stores, runs, decoded folders and searches below folders, and how far each is."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

from grncli.decoding.outputs import LIST
from grncli.decoding.outputs import MANIFEST as DECODE_MANIFEST
from grncli.evaluation.search_folder import MANIFEST, RESULTS
from grncli.runs.checkpoint import COMPLETE, EXPORT, RECIPE, list_checkpoints, read_state, step_of
from grncli.runs.checkpoint import LOCK as RUN_LOCK
from grncli.runs.recipe import kind_of, load_yaml
from grncli.runs.rundir import is_run
from grncli.runtime.errors import GrnError
from grncli.runtime.folders import LOCK as FOLDER_LOCK
from grncli.runtime.jsonlines import parse_line
from grncli.runtime.lock import is_held
from grncli.runtime.writer_status import read_status
from grncli.status.piece_status import FileClock, PieceStatus, file_clock, piece_status
from grncli.status.work_status import WorkStatus
from grncli.store.bits import BitSchema
from grncli.store.feature_settings import FeatureSchema, read_feature_settings
from grncli.store.fingerprint import read_fingerprint
from grncli.store.root_kinds import names_store
from grncli.store.rows.byte_source import LocalFiles, root_attributes
from grncli.store.rows.record import PartRecord, read_record
from grncli.store.rows.schema import COMPLETE as STORE_COMPLETE
from grncli.store.rows.schema import FAILURES, LOCK, METADATA, Schema, parse_part, part_name
from grncli.store.text_features import is_features_store

DEEPEST = 3  # folders below one that is asked about
TAIL = 1 << 16  # bytes of the log of failures that are looked at
READERS = 16  # threads; a network file system answers many as fast as one

Clock = Callable[[], FileClock]


def work_below(paths: Sequence[Path]) -> list[WorkStatus]:
    """State of the stores, runs, folders of samples, decoded files and searches at or below paths, up to three deep.

    Raises
    ------
    GrnError
        If a path does not exist, or nothing of the kind is found at one.
    """
    works = []
    for path in paths:
        found = [_status_of(place, kind) for place, kind in _found(path, DEEPEST)]
        if not found:
            what = "holds no store, run, samples, decoded files or search" if path.exists() else "does not exist"
            raise GrnError(f"{path} {what}; give one that grn began to fill, or a folder of them")
        works += found
    return works


def _found(path: Path, deepest: int) -> Iterator[tuple[Path, str]]:
    """Folders that hold work, and of which kind; those that may not be looked into are passed over."""
    kind = _kind(path)
    if kind:
        yield path, kind
    elif deepest and path.is_dir():
        for name in sorted(entry.name for entry in os.scandir(path) if _is_folder(entry)):
            if not name.startswith("."):
                with suppress(PermissionError):
                    yield from _found(path / name, deepest - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):  # of a link that leads to itself
        return entry.is_dir()
    return False


def _kind(path: Path) -> str:
    if (path / METADATA).is_file():
        with suppress(GrnError):
            return "store" if names_store(root_attributes(LocalFiles(path)) or {}) else ""
        return "store"  # a damaged one
    if is_run(path) or list_checkpoints(path):  # the latter with a damaged recipe
        return "run"
    if (path / MANIFEST).is_file():
        return "search"
    return "decoded files" if (path / DECODE_MANIFEST).is_file() else ""


def _status_of(path: Path, kind: str) -> WorkStatus:
    clock = cache(partial(file_clock, path))
    if kind == "run":
        return _run_status(path, clock)
    if kind == "search":
        return _listed_status(path, kind, "trials", RESULTS, clock)
    if kind == "decoded files":
        return _listed_status(path, kind, "samples", LIST, clock)
    return _store_status(path, clock)


def _store_status(path: Path, clock: Clock) -> WorkStatus:
    source = LocalFiles(path)
    is_features = False
    try:
        is_features = is_features_store(path)
        schema: Schema
        schema = FeatureSchema(read_feature_settings(source)) if is_features else BitSchema(read_fingerprint(source))
    except GrnError as error:
        damaged = PieceStatus(state="damaged", reason=str(error))
        return WorkStatus(path=path, kind="store", unit="samples", pieces=[damaged])
    began = {parse_part(name) for name in source.list("")}

    def read(part: int) -> tuple[PieceStatus, bool]:
        if part not in began:
            return PieceStatus(part=part, state="not begun"), False
        return _part_status(path, source, schema, part, clock)

    with ThreadPoolExecutor(READERS) as readers:
        parts = list(readers.map(read, range(schema.parts)))
    pieces, sampled = [piece for piece, _ in parts], any(by_sample for _, by_sample in parts)
    if source.size(STORE_COMPLETE) is None and all(piece.state == "complete" for piece in pieces):
        pieces[-1] = replace(pieces[-1], state="unfinished")  # killed before it set the mark
    return WorkStatus(
        path=path,
        kind="features store" if is_features else "bit store",
        unit="prompts" if is_features else "samples" if sampled else "sources",
        pieces=pieces,
    )


def _part_status(
    store: Path, source: LocalFiles, schema: Schema, number: int, clock: Clock
) -> tuple[PieceStatus, bool]:
    """State of a part, and whether ``grn sample`` makes it."""
    folder = store / part_name(number)
    try:
        record = read_record(source, number, schema)
    except GrnError as error:
        return PieceStatus(part=number, state="damaged", reason=str(error)), False
    counted = record or PartRecord()
    saved = PieceStatus(
        part=number,
        state="complete" if counted.complete else "not begun" if record is None else "unfinished",
        done=counted.position,
        total=counted.position if counted.complete else counted.sources,  # no part of samples knows it before
        failed=counted.failed,
        last_failure=_last_failure(source, f"{part_name(number)}/{FAILURES}", counted) if counted.failed else "",
    )
    return piece_status(saved, folder, clock, folder / LOCK), bool(counted.columns)


def _last_failure(source: LocalFiles, name: str, record: PartRecord) -> str:
    """The source that could not be read last, and why; "" where the end of the log does not say."""
    tail = min(record.failures_bytes, TAIL)
    with suppress(OSError, GrnError), source.stream(name) as file:
        file.seek(record.failures_bytes - tail)
        for line in reversed(file.read(tail).split(b"\n")):
            if line and (failure := parse_line(line, name, error=GrnError, remedy="")).get("error"):
                return f"{failure.get('source')}: {failure['error']}"
    return ""


def _run_status(path: Path, clock: Clock) -> WorkStatus:
    try:
        fields = load_yaml(path / RECIPE)
        kind = kind_of(fields)
        if kind is None:
            raise GrnError(f"{path / RECIPE}: is no recipe of a run; restore it from a copy")
        checkpoints = list_checkpoints(path)
        exported = read_state(path).step if (path / EXPORT).is_file() else None
    except GrnError as error:
        damaged = PieceStatus(state="damaged", reason=str(error))
        return WorkStatus(path=path, kind="run", unit="steps", pieces=[damaged])
    training = fields.get("training")
    steps = training.get("steps") if isinstance(training, dict) else None
    finished = fields.get("imported") is not None or exported is not None
    saved = PieceStatus(
        state="complete" if finished or (path / COMPLETE).exists() else "unfinished" if checkpoints else "not begun",
        done=step_of(checkpoints[-1]) if checkpoints else exported or 0,
        total=steps if isinstance(steps, int) and not finished else None,
    )
    piece = piece_status(saved, path, clock, path / RUN_LOCK)
    return WorkStatus(path=path, kind=kind, unit="steps", pieces=[piece])


def _listed_status(path: Path, kind: str, unit: str, log: str, clock: Clock) -> WorkStatus:
    """State of work that has a line for each of its units and no mark of its end: only a writer says how many."""
    lock, done = path / FOLDER_LOCK, 0
    with suppress(OSError), (path / log).open("rb") as file:
        done = sum(piece.count(b"\n") for piece in iter(partial(file.read, 1 << 20), b""))
    ended = done > 0 and read_status(path) is None and not is_held(lock)
    saved = PieceStatus(state="complete" if ended else "unfinished", done=done, total=done if ended else None)
    piece = piece_status(saved, path, clock, lock)
    return WorkStatus(path=path, kind=kind, unit=unit, pieces=[piece])
