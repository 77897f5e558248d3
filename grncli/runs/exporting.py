"""``grn export``: the weights of a run as one file for use and publication, with a card that says what it is.

DIR/export.json          what was exported: the mark by which the command knows the folder
DIR/ema.safetensors      the weights, under the name that everything downstream uses; or, in the release's layout,
DIR/model.safetensors    under the release's names, for its code and for grn import
DIR/recipe.yaml          as in a run directory, not in the release's layout
DIR/README.md            the model card
DIR/state.json           as in a checkpoint, not in the release's layout

What a layout has last is there only while all the rest is.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from grncli.runs.checkpoint import EMA, EXPORT, RECIPE, STATE, read_state, run_of
from grncli.runs.describing import describe_run
from grncli.runs.kinds import SETTINGS, ReleasedLayout, ReleasedWeights, Weights
from grncli.runs.loading import OpenedRun, opened_weights, read_newest, read_run
from grncli.runs.metrics_log import METRICS, read_metrics
from grncli.runs.model_card import CardFacts, model_card
from grncli.runs.networks import checked_weights
from grncli.runs.recipe import dump_recipe
from grncli.runs.registry import KINDS
from grncli.runs.rundir import RunRecord, read_record
from grncli.runs.stored_tensors import StoredTensors
from grncli.runtime.devices import DTYPES, dtype_name
from grncli.runtime.differences import differences, shown_value
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.files import replace_file, whole_file
from grncli.runtime.folders import ClaimedFolder, FolderMarker, remove
from grncli.runtime.jsonfiles import to_json
from grncli.runtime.monitor import Monitor
from grncli.runtime.tensor_files import LazyTensor, sha256_of, write_tensors

Layout = Literal["grn", "release"]
AnyOpened = OpenedRun[Any, Any]

MODEL = "model.safetensors"
CARD = "README.md"
FILES: Mapping[Layout, tuple[str, ...]] = {"grn": (EMA, RECIPE, CARD, STATE), "release": (MODEL, CARD)}


@dataclass(frozen=True)
class RunExport:
    """An exported network.

    Parameters
    ----------
    file, bytes, sha256 : of the weights
    dtype : of the weights, ``float32`` or ``bfloat16``
    step : of the checkpoint that they are of
    present : whether all was there before
    """

    out: Path
    file: Path
    bytes: int
    sha256: str
    dtype: str
    step: int
    present: bool


class ExportOptions(NamedTuple):
    """What of a run is exported, and how; ``dtype`` None leaves the numbers as they are."""

    weights: str = "ema"
    layout: Layout = "grn"
    dtype: str | None = None
    overwrite: bool = False


def export_run(run: Path, out: Path, options: ExportOptions, monitor: Monitor) -> RunExport:
    """Write the newest weights of a run, or those of a checkpoint that is named itself, into a folder of their own.

    Raises
    ------
    UsageError
        If ``out`` holds anything else, or what is asked for does not exist or does not fit the layout.
    CheckpointError
        If there is no such run, or it is damaged.
    LockError
        If another process writes ``out``.
    """
    if options.layout not in FILES:
        raise UsageError(f"--layout {options.layout}: expected {' or '.join(FILES)}")
    if options.dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype {options.dtype}: expected {' or '.join(DTYPES)}")
    if os.path.exists(run) and os.path.exists(out) and os.path.samefile(run, out):
        raise UsageError(f"{out}: is the run itself, expected another DIR")
    marker = FolderMarker(
        folder=out,
        file=out / EXPORT,
        command="grn export",
        purpose="a folder to export to",
        remedy="choose another DIR",
    )
    marker.read()  # before anything is hashed
    return read_newest(run, lambda checkpoint: _export(read_run(run, checkpoint, KINDS), marker, options, monitor))


def _export(opened: AnyOpened, marker: FolderMarker, options: ExportOptions, monitor: Monitor) -> RunExport:
    out = marker.folder
    file = out / FILES[options.layout][0]
    with opened_weights(opened, options.weights) as (network, stored):
        content = _content(opened, network, stored, options)
        asked = {
            "run": run_of(opened.checkpoint).name,
            "step": opened.step,
            "weights": options.weights,
            "sha256": stored.sha256(),
            "layout": options.layout,
            "dtype": content.dtype,
        }
        present = _is_present(marker, asked, options)
        if present:
            sha256 = sha256_of(file)
        else:
            if opened.unfinished is not None:
                monitor.say(opened.unfinished)
            with _claimed(out):
                _is_present(marker, asked, options)  # refuses what another process may have put there since
                sha256 = _write(content, marker, asked, monitor)
    if opened.kind.name == "tokenizer" and options.layout == "grn" and sha256 != asked["sha256"]:
        monitor.say(
            f"{out}: its weights are in {content.dtype} and those of {opened.run} are not, so that the two make "
            "different bits, and stores of the one do not fit the other"
        )
    return RunExport(out, file, file.stat().st_size, sha256, content.dtype, opened.step, present)


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Make a folder and be its only writer for the time of a block; CheckpointError where it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with ClaimedFolder(out):
            yield
    except OSError as error:  # which would be taken for one of reading the weights
        place = os.fsdecode(error.filename or out)
        raise CheckpointError(
            f"{place}: cannot be written ({error.strerror or error}); choose another DIR, or free space and run the "
            "same command again"
        ) from None


def _is_present(marker: FolderMarker, asked: Mapping[str, Any], options: ExportOptions) -> bool:
    """Whether all that is asked for is there and stays; UsageError for a whole export of anything else."""
    there = marker.read()
    # What a file on disk says may be anything.
    names = next((names for layout, names in FILES.items() if there and there.get("layout") == layout), ())
    is_whole = bool(names) and all((marker.folder / name).is_file() for name in names)
    if is_whole:
        marker.require(asked, overwrite=options.overwrite)
    return is_whole and not options.overwrite


# What is written


class _Content(NamedTuple):
    """A run and its weights by the names of a layout, with what their file's header holds and their number format."""

    opened: AnyOpened
    network: nn.Module
    stored: StoredTensors
    weights: Weights
    header: Mapping[str, str]
    dtype: str
    released: str | None  # what the network is called in the release; None in our layout
    record: RunRecord | None
    log: Sequence[Mapping[str, Any]]


def _content(opened: AnyOpened, network: nn.Module, stored: StoredTensors, options: ExportOptions) -> _Content:
    weights: Weights = {
        name: LazyTensor(partial(stored.read, name), size.shape, size.dtype) for name, size in stored.sizes.items()
    }
    if options.dtype is not None:
        weights = {name: _converted(tensor, DTYPES[options.dtype]) for name, tensor in weights.items()}
    dtype = " and ".join(sorted({dtype_name(tensor.dtype) for tensor in weights.values()}))
    header, released = stored.metadata, None
    if options.layout == "release":
        layout = next(each for each in opened.kind.layouts if isinstance(opened.recipe.network, each.network))
        weights, settings = _released(opened, weights, layout)
        header, released = {"format": "pt", SETTINGS: json.dumps(settings)}, layout.name
    run = run_of(opened.checkpoint)
    log = _last_lines(run / METRICS, opened.step)
    return _Content(opened, network, stored, weights, header, dtype, released, read_record(run), log)


def _converted(tensor: Tensor | LazyTensor, dtype: torch.dtype) -> LazyTensor:
    return LazyTensor.of(lambda parts: parts[0].to(dtype), [tensor])


def _released(opened: AnyOpened, weights: Weights, layout: ReleasedLayout[Any]) -> tuple[Weights, dict[str, Any]]:
    """Weights in the layout of the release; UsageError where ``grn import`` would make another network of them."""
    try:
        released, settings = layout.release(opened.recipe, weights)
        sizes = {name: torch.empty(each.shape, dtype=each.dtype, device="meta") for name, each in released.items()}
        again, _ = layout.convert(ReleasedWeights(file=Path(MODEL), contents={}, weights=sizes, settings=settings))
        for each in differences(asdict(opened.recipe.network), asdict(again.network)):
            raise ValueError(f"network.{each.name} is {shown_value(each.there)}, expected {shown_value(each.asked)}")
    except ValueError as reason:
        raise UsageError(
            f"{opened.run}: {reason}, as released {layout.name}s have; export it with --layout grn"
        ) from None
    return released, settings


def _write(content: _Content, marker: FolderMarker, asked: Mapping[str, Any], monitor: Monitor) -> str:
    """Fill the folder; what was exported there before stays until the new weights are on disk. The SHA-256 of these."""
    out, names, opened = marker.folder, FILES[asked["layout"]], content.opened
    if marker.read() is None:
        marker.write(asked)
    with whole_file(out / names[0]) as temporary:
        write_tensors(temporary, checked_weights(content.weights, content.stored.place, monitor), content.header)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        content.stored.confirm()
        for name in {*FILES["grn"], *FILES["release"]} - set(names[:-1]):
            remove(out / name)
        marker.write(asked)
    sha256 = sha256_of(out / names[0])
    recipe = dump_recipe(opened.recipe, opened.kind.sections(opened.recipe) if opened.recipe.imported else ())
    state = {"step": opened.step, "averaged": read_state(opened.checkpoint).averaged}
    texts = {
        RECIPE: recipe,
        CARD: model_card(_card_facts(content, out / names[0], sha256, asked["weights"], recipe)),
        STATE: to_json({**state, "tensors": {"ema": len(content.weights)}}, indent=1) + "\n",
    }
    for name in names[1:]:
        replace_file(out / name, texts[name].encode())
    return sha256


def _card_facts(content: _Content, file: Path, sha256: str, weights: str, recipe_text: str) -> CardFacts:
    return CardFacts(
        name=file.absolute().parent.name,
        run=describe_run(content.opened, content.network, sha256),
        recipe=content.opened.recipe,
        recipe_text=recipe_text,
        file=file.name,
        bytes=file.stat().st_size,
        sha256=sha256,
        dtype=content.dtype,
        weights=weights,
        released=content.released,
        record=content.record,
        log=content.log,
    )


def _last_lines(log: Path, step: int) -> list[Mapping[str, Any]]:
    """The last line with numbers of a validation and the last with a loss, up to a step."""
    lines: dict[bool, Mapping[str, Any]] = {}
    for line in read_metrics(log):
        if line["step"] <= step:
            lines |= {name != "loss": line for name in line if name == "loss" or name.startswith("validation_")}
    return sorted(lines.values(), key=lambda line: int(line["step"]))
