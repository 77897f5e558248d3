"""Generators as run directories: loading one, and importing a released checkpoint as one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from grncli.hbq import MAX_ROUNDS
from grncli.models.generator import Generator
from grncli.runs.checkpoint import RECIPE, find_checkpoint, run_of
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.loading import Loaded, Released, Say, open_released, open_run
from grncli.runs.networks import (
    choose_weights,
    describe_network,
    fill,
    made_on_meta,
    read_run,
    read_settings,
    verify_network,
    write_imported,
)
from grncli.runs.recipe import parse_recipe
from grncli.runs.released_names import POSITIONS, generator_config, generator_weights
from grncli.runs.rundir import check_run_is_free
from grncli.runtime.errors import CheckpointError, UsageError

KIND = "generator"
IMPORTED = ("kind", "network", "bits", "imported")  # the parts of a recipe that an imported run has
WEIGHTS = {"ema1": "model_ema1", "ema2": "model_ema2", "model": "model"}
SETTINGS = {"in_context_start": "in_context_start=4", "rounds": "rounds=4", "prediction": "prediction=ind"}
CONTEXT_STARTS = {12: 4, 24: 8, 32: 10, 40: 10}  # of the released depths
TIME_STRIDE = 4  # of the released tokenizers
METHODS: dict[str, Literal["ind", "bit"]] = {"GRN_ind": "ind", "GRN_bit": "bit"}

LoadedGenerator = Loaded[Generator, GeneratorRecipe]


def load_generator(run: str | Path, device: str | torch.device = "cpu", weights: str = "ema") -> Generator:
    """The generator of a run directory (its newest checkpoint's moving average), ready for inference.

    Parameters
    ----------
    run : run directory, or one of its checkpoints
    device : where to put it
    weights : ``ema``, ``ema2`` (the second moving average, where there is one) or ``weights``

    Returns
    -------
    Generator
        In evaluation mode, float32. It takes ``state [B, elements, T, h, w]`` (categories), the selection ratio
        ``[B]`` and ``label [B]`` (the number of classes is the null class), and gives logits
        ``[B, K, elements, T, h, w]``; see its ``config``.

    Raises
    ------
    CheckpointError
        If there is no such run, or its weights are damaged or do not fit its recipe.
    """
    return open_generator(run, weights).network.to(device)


def open_generator(run: str | Path, weights: str = "ema", *, say: Say = lambda text: None) -> LoadedGenerator:
    """As `load_generator` on the CPU, with the recipe, the step and the identity of the weights that were read.

    ``say`` is told in one sentence where the training is not finished.
    """
    loaded = open_run(run, GeneratorRecipe, KIND, _build, weights=weights, say=say)
    _check_bits(loaded.recipe, run)
    return loaded


def verify_generator(run: str | Path) -> list[str]:
    """Problems of a run's weights, one sentence each; none if they load and are finite."""
    return verify_network(run, load_generator)


def describe_generator(run: str | Path) -> dict[str, Any]:
    """What ``grn info`` tells of a run: recipe, parameters, the bits it makes, checkpoints, step and identity."""
    checkpoint, recipe = read_run(run, GeneratorRecipe, KIND)
    _check_bits(recipe, run)
    network = made_on_meta(lambda: _build(recipe))
    assert recipe.bits is not None
    return describe_network(checkpoint, recipe, network, IMPORTED) | {
        "prediction": recipe.network.prediction,
        "rounds": recipe.network.rounds,
        "channels": recipe.network.channels,
        "classes": recipe.network.classes,
        "stride": list(recipe.bits.stride),
        "grids": recipe.bits.grids,
        "tokenizer": recipe.bits.tokenizer,
    }


def import_generator(
    file: Path,
    run: Path,
    *,
    loaded: Released | None = None,
    weights: str | None = None,
    settings: Sequence[str] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Turn a released class-conditional checkpoint into a run directory.

    Parameters
    ----------
    file : pickled dictionary with the weights under ``model_ema1``, ``model_ema2`` and ``model``, and ``args``
    run : directory to make
    loaded : what the file holds, where it has been read already
    weights : ``ema1`` (the default), ``ema2`` or ``model``
    settings : ``field=value`` for what the file cannot tell: ``in_context_start``, where the depth is no released one
    overwrite : replace a run directory that is already there

    Raises
    ------
    CheckpointError
        If the file is no released generator, or ``run`` exists.
    UsageError
        If ``in_context_start`` is needed and not given.
    """
    check_run_is_free(run, KIND, overwrite=overwrite)
    contents, sha256 = loaded or open_released(file)
    chosen, released = choose_weights(contents, WEIGHTS, weights, file, KIND)
    told = _check_told(_arguments(contents, file) | read_settings(settings, SETTINGS), file)
    try:
        named = generator_weights(released)
        if told.get("in_context_start") is None:
            told["in_context_start"] = _in_context_start(named, file)
        network = generator_config(
            named,
            prediction=told["prediction"],
            rounds=told["rounds"],
            in_context_start=told["in_context_start"],
        )
        bits = _bits(released, told, network.null_class)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # shapes and names may be anything
        raise CheckpointError(f"{file}: {str(error)[:300]}, expected the weights of a released generator") from None
    data = {
        "network": asdict(network),
        "bits": bits,
        "imported": {"file": file.name, "weights": chosen, "sha256": sha256},
    }
    recipe = parse_recipe(data, GeneratorRecipe, str(file))
    filled = fill(made_on_meta(lambda: _build(recipe)), named, str(file))
    write_imported(run, recipe, filled, IMPORTED, overwrite=overwrite)
    return describe_generator(run)


def _build(recipe: GeneratorRecipe) -> Generator:
    return Generator(recipe.network)


def _check_bits(recipe: GeneratorRecipe, run: str | Path) -> None:
    if recipe.bits is None:
        raise CheckpointError(
            f"{run_of(find_checkpoint(Path(run))) / RECIPE}: has no section bits, expected it; restore the file"
        )


def _arguments(loaded: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """What the release's training arguments tell: prediction, rounds, and the side of its pictures."""
    arguments = vars(loaded["args"]) if hasattr(loaded.get("args"), "__dict__") else {}
    method = arguments.get("method")
    if method not in (None, *METHODS):
        raise CheckpointError(f"{file}: was trained by the method {method!r}, expected {' or '.join(METHODS)}")
    told = {"prediction": METHODS.get(str(method)), "rounds": arguments.get("hbq_round")}
    return {key: value for key, value in told.items() if value is not None} | {"side": arguments.get("img_size")}


def _check_told(told: dict[str, Any], file: Path) -> dict[str, Any]:
    """What the file or the user says, once it is known to make sense; UsageError otherwise."""
    for field in ("prediction", "rounds"):
        if field not in told:
            raise UsageError(f"{file}: does not tell its {field}; say it with --set {SETTINGS[field]}")
    start = told.get("in_context_start", 0)
    expected = {
        "prediction": (told["prediction"] in METHODS.values(), " or ".join(METHODS.values())),
        "rounds": (_is_count(told["rounds"]) and 1 <= told["rounds"] <= MAX_ROUNDS, f"1 to {MAX_ROUNDS}"),
        "in_context_start": (_is_count(start), "the number of a block, counted from 0"),
    }
    for field, (right, wanted) in expected.items():
        if not right:
            raise UsageError(f"{file}: {field} is {told[field]!r}, expected {wanted}; say it with --set")
    return told


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _in_context_start(named: Mapping[str, Tensor], file: Path) -> int:
    depth = len({name.split(".")[1] for name in named if name.startswith("blocks.")})
    if depth not in CONTEXT_STARTS:
        raise UsageError(
            f"{file}: has {depth} blocks, which no released generator has, so the block before which its in-context "
            "tokens join is unknown; say it with --set in_context_start=N, counted from 0"
        )
    return CONTEXT_STARTS[depth]


def _bits(released: Mapping[str, Tensor], told: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """What the network was trained on, as far as the file tells: square pictures of numbered classes."""
    side = isqrt(released[POSITIONS].shape[1])
    stride = int(told.get("side") or 16 * side) // side
    return {
        "tokenizer": {},
        "stride": [TIME_STRIDE, stride, stride],
        "labels": [str(number) for number in range(classes)],
        "grids": {f"1x{side}x{side}": 0},
    }
