"""``grn import``: telling which network a released checkpoint is of, and making a run directory of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from grncli.models.unfilled import made_on_meta
from grncli.runs.checkpoint import EMA, RECIPE, check_tensors, take_checkpoint, write_checkpoint
from grncli.runs.describing import describe_run
from grncli.runs.kinds import SETTINGS, NetworkKind, ReleasedLayout, ReleasedWeights, Weights
from grncli.runs.loading import OpenedRun
from grncli.runs.networks import FORMATS, checked_weights
from grncli.runs.recipe import dump_recipe
from grncli.runs.registry import KINDS
from grncli.runs.release_settings import read_settings
from grncli.runs.rundir import (
    STAGING,
    check_run_is_free,
    clear_run,
    locked_run,
    mark_complete,
    new_record,
    refuse_links,
    remove,
    write_record,
)
from grncli.runtime.errors import CheckpointError
from grncli.runtime.files import whole_file
from grncli.runtime.held_files import HeldFile
from grncli.runtime.jsonfiles import brief, parse_json
from grncli.runtime.monitor import Monitor
from grncli.runtime.tensor_files import REASON, SAFETENSORS, open_tensors, read_released, sha256_of
from grncli.runtime.text import one_line

AnyKind = NetworkKind[Any, Any]
AnyLayout = ReleasedLayout[Any]


class Released(NamedTuple):
    """What a file of other authors holds; tensors are read from it when they are used, while it is held."""

    file: Path
    contents: dict[str, Any]
    held: HeldFile
    settings: dict[str, Any]  # what the header of a file that grn export wrote says beside its weights


def import_released(
    file: Path,
    run: Path,
    *,
    weights: str | None = None,
    settings: Sequence[str] = (),
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> dict[str, Any]:
    """Turn a released checkpoint of a tokenizer or a generator into a run directory.

    Parameters
    ----------
    weights : one of the layout's ``entries``; by default the first that is there
    settings : ``field=value`` for what the file does not contain, of the layout's ``settings``
    overwrite : replace a run directory of the same kind that is already there
    monitor : gets the bytes of weights that are written, and those in all

    Returns
    -------
    What ``grn info`` prints of the run.

    Raises
    ------
    CheckpointError
        If the file holds no such network, or ``run`` exists.
    UsageError
        If the settings are wrong, or one that the file needs is missing.
    """
    check_run_is_free(run, None, overwrite=overwrite)  # before gigabytes are read
    with open_released(file) as released:
        kind, layout = recognize(released)
        check_run_is_free(run, kind.name, overwrite=overwrite)
        name, chosen = choose_weights(released, layout, weights)
        known = {
            **header_settings(released, layout),
            **read_settings(settings, layout.settings, layout.texts),
        }
        source = ReleasedWeights(file=file, contents=released.contents, weights=chosen, settings=known)
        try:
            recipe, tensors = layout.convert(source)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # anything may be in it
            reason = one_line(error, REASON)
            raise CheckpointError(f"{file}: {reason}; give the weights of a released {layout.name}") from None
        network = made_on_meta(lambda: kind.build(recipe))
        check_tensors(tensors, network.state_dict(), str(file), formats=FORMATS)
        origin = {"file": file.name, "weights": name, "sha256": released.held.sha256()}
        recipe = replace(recipe, imported=origin)
        checkpoint = _write_run(
            run, kind, recipe, checked_weights(tensors, file, monitor or Monitor()), released.held, overwrite=overwrite
        )
    opened = OpenedRun(run=run, checkpoint=checkpoint, kind=kind, recipe=recipe, step=0)
    return describe_run(opened, network, sha256_of(checkpoint / EMA))


@contextmanager
def open_released(file: Path) -> Iterator[Released]:
    """A released checkpoint, read as `read_released` does; the file stays open for the time of a block."""
    if not file.is_file():
        read_released(file)  # which raises the error
    with HeldFile(file) as held:
        contents = read_released(file, mapped=True)
        settings = _settings_in(file) if file.suffix == SAFETENSORS else {}
        held.confirm()
        yield Released(file, contents, held, settings)


def _settings_in(file: Path) -> dict[str, Any]:
    with open_tensors(file) as opened:
        text = (opened.metadata() or {}).get(SETTINGS, "{}")
    parsed = parse_json(text.encode(), f"{file}: {SETTINGS}", error=CheckpointError, remedy="get the file anew")
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{file}: {SETTINGS} is {brief(parsed)}, expected fields and values; get the file anew")
    return parsed


def header_settings(released: Released, layout: AnyLayout) -> dict[str, Any]:
    """What a file says of itself; CheckpointError for what it cannot say of such a network."""
    unknown = next((name for name in released.settings if name not in layout.settings), None)
    if unknown is not None:
        raise CheckpointError(
            f"{released.file}: {SETTINGS} has the field {brief(unknown)}, which no {layout.name} has; get the file anew"
        )
    return released.settings


def recognize(released: Released) -> tuple[AnyKind, AnyLayout]:
    """The kind of network that a file holds, and how; CheckpointError where it is none."""
    layouts = [(kind, layout) for kind in KINDS for layout in kind.layouts]
    for kind, layout in layouts:
        if layout.find(released.contents):
            return kind, layout
    expected = ", or ".join(layout.places for _, layout in layouts)
    raise CheckpointError(f"{released.file}: has the entries {brief(list(released.contents))}, expected {expected}")


def choose_weights(released: Released, layout: AnyLayout, wanted: str | None) -> tuple[str, dict[str, Tensor]]:
    """What ``--weights`` calls the weights to take from a released file, and these weights."""
    file, entries = released.file, layout.find(released.contents)
    present = [name for name, entry in entries.items() if isinstance(entry, dict)]
    if not present:
        raise CheckpointError(f"{file}: has the entries {brief(list(released.contents))}, expected {layout.places}")
    if wanted is not None and wanted not in present:
        raise CheckpointError(f"{file}: has no weights under {wanted!r}, expected one of {present}")
    chosen = wanted or present[0]
    if not all(map(_is_dense, entries[chosen].values())):
        place = "it" if entries[chosen] is released.contents else f"the entry {layout.entries[chosen]!r}"
        raise CheckpointError(f"{file}: {place} holds more than tensors, expected weights")
    return chosen, entries[chosen]


def _is_dense(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _write_run(run: Path, kind: AnyKind, recipe: Any, tensors: Weights, source: HeldFile, *, overwrite: bool) -> Path:
    """Make the run directory of an imported network, whole or not at all; returns its checkpoint."""
    with locked_run(run):
        check_run_is_free(run, kind.name, overwrite=overwrite)  # another process may have made it since
        staging = run / STAGING
        remove(staging)
        try:
            # What is there already is cleared only once the new one is on disk.
            checkpoint = write_checkpoint(staging, 0, {"ema": tensors}, {"step": 0}, asdict(recipe.network))
            source.confirm()
            clear_run(run, but=(STAGING,))
            refuse_links(run)
            with whole_file(run / RECIPE) as temporary:
                temporary.write_text(dump_recipe(recipe, kind.sections(recipe)), encoding="utf-8")
            write_record(run, new_record(None, None, None))
            taken = take_checkpoint(checkpoint, run)
        finally:
            remove(staging)
        mark_complete(run)
    return taken
