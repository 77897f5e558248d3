"""Run directories that training writes: what is done, whether recipe and data are still the same, and making one."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from grncli.media.sources import Source
from grncli.runs.checkpoint import COMPLETE, RECIPE, list_checkpoints
from grncli.runs.kinds import AnyRecipe, RunRecipe
from grncli.runs.recipe import dump_recipe, kind_of, load_yaml, parse_own_recipe, read_own_recipe, read_recipe
from grncli.runs.recipe_fields import field_names
from grncli.runs.recipe_schema import RECIPES
from grncli.runs.rundir import (
    DataRecord,
    Place,
    check_run_is_free,
    clear_run,
    locked_run,
    mark_complete,
    new_record,
    read_record,
    refuse_export,
    refuse_links,
    tidy_run,
    unmark_complete,
    write_record,
)
from grncli.runs.shipped_recipes import COMMANDS, find_recipe
from grncli.runs.stored_tensors import check_checkpoint
from grncli.runtime.devices import DTYPES, dtype_name, pick_dtype
from grncli.runtime.differences import describe_differences
from grncli.runtime.errors import CheckpointError, RecipeError
from grncli.runtime.files import whole_file
from grncli.runtime.jsonfiles import brief
from grncli.runtime.monitor import Say
from grncli.runtime.processes import Processes
from grncli.runtime.text import printable

# What of a recipe may change between the parts of a run.
EXTENDABLE = (
    *("steps", "log_every", "checkpoint_every", "preview_every", "validate_every"),
    *("keep", "keep_every", "compile", "activation_checkpointing", "parallel", "tensorboard"),
)

SHOWN_FIELDS = 3


def read_training_recipe(path: Path, schema: type[AnyRecipe], overrides: tuple[str, ...] | list[str]) -> AnyRecipe:
    """A recipe to train by, a file or a shipped one; RecipeError when it is one for something else."""
    path = find_recipe(path)

    def check(fields: Mapping[str, Any]) -> None:
        _check_kind(path, fields, schema)

    recipe = read_recipe(path, schema, overrides, check)
    if recipe.imported is not None:
        raise RecipeError(f"{path}: is the recipe of an imported run, which has no training to repeat")
    return recipe


def _check_kind(path: Path, fields: Mapping[str, Any], schema: type) -> None:
    """Raise RecipeError for the recipe of another command, as its ``kind`` says, or without one its fields."""
    wanted = next(kind for kind, each in RECIPES.items() if each is schema)
    kind, sign = fields.get("kind"), f"kind: {fields.get('kind')}"
    if kind is None:
        names = {kind: set(field_names(each)) for kind, each in RECIPES.items()}
        present = {
            *fields,
            *(f"{key}.{name}" for key, each in fields.items() if isinstance(each, dict) for name in each),
        }
        (other,) = names.keys() - {wanted}
        telling = sorted(present & (names[other] - names[wanted]))
        if telling and not present & (names[wanted] - names[other]):  # with some of both it is rather a mistake
            kind, sign = other, f"it has {', '.join(telling[:SHOWN_FIELDS])}"
    if kind != wanted and isinstance(kind, str) and kind in COMMANDS:
        raise RecipeError(f"{path}: is a recipe for {COMMANDS[kind]} ({sign}), expected one for {COMMANDS[wanted]}")


def media_record(sources: Sequence[Source], src: str | Sequence[str]) -> DataRecord:
    """The media of a run by their names below SRC and their sizes, so that they may be moved but not changed."""
    digest = hashlib.sha256()
    for source in sources:
        size = source.size
        if source.problem is not None:
            size = -1
        elif source.member is None:
            try:
                size = os.stat(source.path).st_size
            except OSError:
                size = -1
        digest.update(os.fsencode(source.relative) + b"\0%d\n" % size)
    places = [each if each == "-" else os.path.abspath(each) for each in ([src] if isinstance(src, str) else src)]
    return DataRecord(digest.hexdigest(), len(sources), "sources", ", ".join(places))


def bits_record(stores: Sequence[str], samples: int, features: str = "") -> DataRecord:
    """The bits of a run by the hashes of their stores, in the order of training.

    ``features`` names the number format that text features are computed in, where there are any.
    """
    digest = hashlib.sha256(json.dumps(list(stores)).encode()).hexdigest()
    return DataRecord(digest, samples, "samples", features=features)


class PresentRun:
    """What is in a run directory; its recipe is read once, and nothing is written."""

    def __init__(self, run: Path) -> None:
        self.run = run
        try:
            self._fields = load_yaml(run / RECIPE)
        except RecipeError:
            self._fields = None
        self.kind = kind_of(self._fields)
        """Of the run; None where there is no recipe of ours."""

    @property
    def dtype(self) -> str | None:
        """The number format that the run is trained in; None where its recipe does not say."""
        training = self._fields.get("training") if self.kind else None
        dtype = training.get("dtype") if isinstance(training, dict) else None
        return dtype if isinstance(dtype, str) and dtype in DTYPES else None

    def steps_done(self, recipe: RunRecipe, data: DataRecord, *, overwrite: bool) -> int | None:
        """Steps of this recipe and data that a sound checkpoint has; None where the run is to be begun.

        With ``overwrite`` a run is made anew, except one that the same request began and that is not finished: this is
        the same command again after it was stopped.

        Raises
        ------
        CheckpointError
            If it was trained with another recipe or other data, is an imported one, or is no run directory.
        """
        refuse_export(self.run)
        resumes = self.kind is not None and (not overwrite or self._was_begun_by(recipe, data))
        if not resumes or self.kind != recipe.kind:
            check_run_is_free(self.run, recipe.kind, overwrite=overwrite)  # a run of another kind never is
            return None
        self._compare_recipe(self._own_recipe(recipe), recipe)
        _compare_data(self.run, data)
        return _sound_steps(self.run)

    def _own_recipe(self, asked: RunRecipe) -> RunRecipe:
        return parse_own_recipe(self._fields, type(asked), self.run / RECIPE)

    def _was_begun_by(self, recipe: RunRecipe, data: DataRecord) -> bool:
        """Whether the very same request with ``--overwrite`` began the run, which is not finished."""
        try:
            record = read_record(self.run)
            if record is None or record.overwrite is None or os.path.lexists(self.run / COMPLETE):
                return False
            if record.overwrite == _request(recipe, data):
                return True
            # The digest that an earlier version left is of a recipe with other names of fields.
            same = record.data is not None and record.data.is_same(data)
            return same and self._own_recipe(recipe) == recipe
        except CheckpointError:
            return False

    def _compare_recipe(self, present: Any, asked: RunRecipe) -> None:
        if present.imported is not None:
            raise CheckpointError(
                f"{self.run}: was made by grn import and cannot be trained further; give another --out"
            )
        free = EXTENDABLE if self.dtype else (*EXTENDABLE, "dtype")
        comparable = replace(
            present,
            training=replace(present.training, **{name: getattr(asked.training, name) for name in free}),
        )
        if comparable != asked:
            raise CheckpointError(
                f"{self.run} was made with another recipe ({describe_differences(asdict(comparable), asdict(asked))}); "
                "use the same one, another --out, or --overwrite"
            )


def settle_dtype(
    recipe: AnyRecipe,
    present: PresentRun | None,
    device: torch.device,
    processes: Processes,
    *,
    say: Say = lambda text: None,
) -> AnyRecipe:
    """The recipe with ``float32`` or ``bfloat16`` as its ``training.dtype``.

    For ``auto``, that of the run that is resumed, on whatever processor, and for a new run (``present`` is None) what
    the device computes in. The first of several processes decides for all.
    """
    recorded = None if present is None else present.dtype
    dtype = recipe.training.dtype
    if dtype == "auto":
        dtype = "bfloat16" if (recorded or dtype_name(pick_dtype("auto", device))) == "bfloat16" else "float32"
        first = torch.tensor(int(processes.is_main and dtype == "bfloat16"), device=device)
        dtype = "bfloat16" if processes.total(first).item() else "float32"
    if present is not None and recorded is None and list_checkpoints(present.run):
        say(
            f"{present.run}: its recipe does not say training.dtype, the number format it was trained in; "
            f"resumes in {dtype}"
        )
    return replace(recipe, training=replace(recipe.training, dtype=dtype))


@contextmanager
def open_run(
    run: Path,
    recipe: RunRecipe,
    data: DataRecord,
    processes: Processes,
    *,
    overwrite: bool,
    say: Say,
) -> Iterator[None]:
    """Be the only writer of a run for the time of a block, and mark it as complete when the block ends well.

    The run is made, or cleared where it is to be made anew. Of several processes the first does this, once all have
    looked at what is there.

    Raises
    ------
    LockError
        If another process trains the run.
    CheckpointError
        As ``PresentRun.steps_done``, and where a link is in the place of what the run writes.
    """
    processes.wait()
    with contextlib.ExitStack() as stack:
        if processes.is_main:
            stack.enter_context(locked_run(run))
            _prepare(run, recipe, data, overwrite, say)
            place = Place(run)
        processes.wait()
        yield
        if processes.is_main:
            place.check()
            mark_complete(run)


def touch_complete(run: Path, recipe: RunRecipe) -> None:
    """Renew the date of a finished run's mark, for make; or leave the mark, where a kill came before it.

    Where nothing can be written nothing is: the run is finished all the same.
    """
    with contextlib.suppress(OSError, CheckpointError):
        try:
            os.utime(run / COMPLETE, follow_symlinks=False)
        except FileNotFoundError:
            # Fewer steps may be asked for than the run's own recipe has.
            wanted = read_own_recipe(run / RECIPE, type(recipe)).training.steps
            if os.access(run, os.W_OK) and _sound_steps(run) >= wanted:
                with locked_run(run):
                    mark_complete(run)


def _prepare(run: Path, recipe: RunRecipe, data: DataRecord, overwrite: bool, say: Say) -> None:
    # Again, as another process may have written since.
    done = PresentRun(run).steps_done(recipe, data, overwrite=overwrite)
    before = None
    if done is None:
        clear_run(run)
    else:
        before = read_record(run)
        if overwrite:
            say(f"{run}: resumes at step {done} what this command with --overwrite began")
        elif before is None and done:
            say(f"{run}: has no run.json, so whether it was trained on the same data before is not known")
    refuse_links(run)
    if done is not None:
        unmark_complete(run)
        tidy_run(run)
    text = dump_recipe(recipe)
    if done is None or (run / RECIPE).read_text(encoding="utf-8") != text:
        with whole_file(run / RECIPE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_record(run, new_record(before, data, _request(recipe, data) if overwrite else None))


def _request(recipe: RunRecipe, data: DataRecord) -> str:
    return hashlib.sha256(f"{dump_recipe(recipe)}\0{data.digest}{data.features}".encode()).hexdigest()


def _compare_data(run: Path, data: DataRecord) -> None:
    record = read_record(run)
    if record is None or record.data is None or record.data.is_same(data):
        return
    was = record.data
    if was.digest == data.digest:
        raise CheckpointError(
            f"{run}: was trained on text features computed in {was.features[:20]}, and these are computed in "
            f"{data.features}; give those of the same --dtype, another --out, or --overwrite"
        )
    place = f" of {brief(printable(was.source))}" if was.source else ""
    differing = "names or sizes" if data.unit == "sources" else "bits or captions"
    raise CheckpointError(
        f"{run}: was trained on other data ({was.items} {was.unit[:20]}{place}, digest {was.digest[:8]}) than these "
        f"{data.items} {data.unit} (digest {data.digest[:8]}), whose {differing} differ; "
        "give the same data, another --out, or --overwrite"
    )


def _sound_steps(run: Path) -> int:
    """The step of the newest checkpoint whose files are sound; what is in the tensors is not looked at."""
    for checkpoint in reversed(list_checkpoints(run)):
        with contextlib.suppress(CheckpointError):
            return check_checkpoint(checkpoint).step
    return 0


def check_division(batches: dict[str, int], gradient_accumulation: int, processes: Processes) -> None:
    """Raise RecipeError unless every batch divides among the processes, and there into its pieces.

    ``batches`` are sizes by the name of their field.
    """
    pieces = processes.count * gradient_accumulation
    for field, batch in batches.items():
        if batch % pieces:
            raise RecipeError(
                f"{field} is {batch}, expected a multiple of {pieces}: "
                f"{processes.count} processes times optimization.gradient_accumulation={gradient_accumulation}"
            )
