"""``grn import``: telling which network a released checkpoint is of, and making a run directory of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grncli.runs import generators, tokenizers
from grncli.runs.loading import open_released
from grncli.runs.rundir import check_run_is_free
from grncli.runtime.errors import CheckpointError

TEXT_GENERATOR = ("block_chunks.", "text_proj.")  # how names of weights begin that are the file itself


def import_released(
    file: Path, run: Path, *, weights: str | None = None, settings: Sequence[str] = (), overwrite: bool = False
) -> dict[str, Any]:
    """Turn a released checkpoint of a tokenizer or a class-conditional generator into a run directory.

    See ``import_tokenizer`` and ``import_generator`` for what they take; returns what ``grn info`` tells of the run.

    Raises
    ------
    CheckpointError, UsageError
        If the file is neither, or ``run`` exists.
    """
    check_run_is_free(run, None, overwrite=overwrite)  # before gigabytes are read
    loaded = open_released(file)
    if any(str(name).startswith(TEXT_GENERATOR) for name in loaded.contents):
        raise CheckpointError(
            f"{file}: is a text-to-image or text-to-video generator, expected a tokenizer or a class-conditional one"
        )
    is_generator = any(entry in loaded.contents for entry in generators.WEIGHTS.values())
    made = generators.import_generator if is_generator else tokenizers.import_tokenizer
    return made(file, run, loaded=loaded, weights=weights, settings=settings, overwrite=overwrite)
