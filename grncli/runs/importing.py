"""``grn import``: telling which network a released checkpoint is of, and making a run directory of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor, nn

from grncli.runs.checkpoint import EMA, RECIPE, take_checkpoint, write_checkpoint
from grncli.runs.describing import describe_run
from grncli.runs.kinds import NetworkKind, ReleasedWeights
from grncli.runs.loading import HeldFile, OpenedRun
from grncli.runs.networks import fill, made_on_meta
from grncli.runs.recipe import dump_recipe
from grncli.runs.registry import KINDS
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
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.jsonfiles import brief
from grncli.runtime.tensor_files import read_released, sha256_of

TEXT_GENERATOR = ("block_chunks.", "text_proj.")  # how names of weights begin that are the file itself


class Released(NamedTuple):
    """What a file of other authors holds, and the SHA-256 of the bytes that this was read from."""

    contents: dict[str, Any]
    sha256: str


def import_released(
    file: Path, run: Path, *, weights: str | None = None, settings: Sequence[str] = (), overwrite: bool = False
) -> dict[str, Any]:
    """Turn a released checkpoint of a tokenizer or a class-conditional generator into a run directory.

    See `import_network`.
    """
    check_run_is_free(run, None, overwrite=overwrite)  # before gigabytes are read
    released = open_released(file)
    if any(str(name).startswith(TEXT_GENERATOR) for name in released.contents):
        raise CheckpointError(
            f"{file}: is a text-to-image or text-to-video generator, expected a tokenizer or a class-conditional one"
        )
    fitting = [kind for kind in KINDS if any(entry in released.contents for entry in kind.entries.values())]
    kind = (fitting or KINDS)[0]
    return import_network(kind, file, run, released, weights=weights, settings=settings, overwrite=overwrite)


def open_released(file: Path) -> Released:
    """Read a released checkpoint as `read_released` does."""
    if not file.is_file():
        return Released(read_released(file), "")  # which raises the error
    with HeldFile(file) as held:
        contents = read_released(file)
        held.confirm()
        return Released(contents, held.sha256())


def import_network(
    kind: NetworkKind[Any, Any],
    file: Path,
    run: Path,
    released: Released,
    *,
    weights: str | None = None,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn the released weights of one kind of network into a run directory.

    Parameters
    ----------
    released : what ``file`` holds
    weights : one of the kind's ``entries``; by default the first that is there
    settings : ``field=value`` for what the file does not contain, of the kind's ``settings``
    overwrite : replace a run directory of the same kind that is already there

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
    check_run_is_free(run, kind.name, overwrite=overwrite)
    name, chosen = choose_weights(released.contents, kind.entries, weights, file, kind.name)
    source = ReleasedWeights(
        file=file,
        contents=released.contents,
        weights=chosen,
        settings=read_settings(settings, kind.settings),
        imported={"file": file.name, "weights": name, "sha256": released.sha256},
    )
    try:
        recipe, tensors = kind.convert(source)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # shapes and names may be anything
        raise CheckpointError(f"{file}: {str(error)[:300]}, expected the weights of a released {kind.name}") from None
    network = fill(made_on_meta(lambda: kind.build(recipe)), tensors, str(file))
    checkpoint = _write_run(run, kind, recipe, network, overwrite=overwrite)
    opened = OpenedRun(run=run, checkpoint=checkpoint, kind=kind, recipe=recipe, step=0)
    return describe_run(opened, network, sha256_of(checkpoint / EMA))


def _write_run(run: Path, kind: NetworkKind[Any, Any], recipe: Any, network: nn.Module, *, overwrite: bool) -> Path:
    """Make the run directory of an imported network, whole or not at all; returns its checkpoint."""
    with locked_run(run):
        check_run_is_free(run, kind.name, overwrite=overwrite)  # another process may have made it since
        staging = run / STAGING
        remove(staging)
        try:
            # What is there already is cleared only once the new one is on disk.
            checkpoint = write_checkpoint(
                staging, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(recipe.network)
            )
            clear_run(run, but=(STAGING,))
            refuse_links(run)
            with whole_file(run / RECIPE) as temporary:
                temporary.write_text(dump_recipe(recipe, kind.sections), encoding="utf-8")
            write_record(run, new_record(None, None, None))
            taken = take_checkpoint(checkpoint, run)
        finally:
            remove(staging)
        mark_complete(run)
    return taken


def choose_weights(
    contents: Mapping[str, Any], names: Mapping[str, str], wanted: str | None, file: Path, kind: str
) -> tuple[str, dict[str, Tensor]]:
    """The weights to take from a released file.

    Parameters
    ----------
    names : what ``--weights`` calls them, to their entry in the file; the first that is there is the default

    Returns
    -------
    The name, and the weights.
    """
    present = [name for name, entry in names.items() if isinstance(contents.get(entry), dict)]
    if wanted is not None and wanted not in present:
        raise CheckpointError(
            f"{file}: has no weights under {wanted!r}, expected one of {present or brief(list(contents))}"
        )
    if not present:
        entries = " or ".join(map(repr, names.values()))
        raise CheckpointError(
            f"{file}: has the entries {brief(list(contents))}, expected the weights of a {kind} under {entries}"
        )
    chosen = wanted or present[0]
    weights = contents[names[chosen]]
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{file}: the entry {names[chosen]!r} holds more than tensors, expected weights")
    return chosen, weights


def read_settings(settings: Sequence[str], known: Mapping[str, str]) -> dict[str, Any]:
    """The user's ``field=value`` settings for what a released file does not contain.

    ``known`` gives an example for each field; UsageError for any other.
    """
    values = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        field = field.removeprefix("network.")
        if field not in known or not equals:
            raise UsageError(f"--set {setting}: expected {' or '.join(known.values())}, the rest is in the file")
        try:
            values[field] = yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise UsageError(f"--set {setting}: has no readable value, expected {known[field]}") from None
    return values
