"""The released class-conditional generators: importing them, and writing others as they are."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.kinds import ReleasedLayout, ReleasedWeights, Weights
from grncli.runs.recipe import parse_recipe
from grncli.runs.release_settings import check_settings, is_count, require_true_bits
from grncli.runs.released_names import POSITIONS, generator_config, generator_weights
from grncli.runs.released_weights import released_class_generator
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.jsonfiles import brief
from grncli.store import parse_grid
from grncli.tokens import Prediction

SETTINGS = {
    "in_context_start": "in_context_start=4",
    "rounds": "rounds=4",
    "prediction": "prediction=ind",
    "stride": "stride=[4,16,16]",
}
CONTEXT_STARTS = {12: 4, 24: 8, 32: 10, 40: 10}  # of the released depths
TIME_STRIDE = 4  # of the released tokenizers
METHODS: dict[str, Prediction] = {"GRN_ind": "ind", "GRN_bit": "bit"}


def _convert(released: ReleasedWeights) -> tuple[GeneratorRecipe, dict[str, Tensor]]:
    """Prediction and rounds are those of the file's training arguments, or of the settings."""
    arguments = _arguments(released)
    settings = _checked({**arguments, **released.settings}, released.file)
    weights = generator_weights(released.weights)
    start = settings.get("in_context_start")
    network = generator_config(
        weights,
        prediction=settings["prediction"],
        rounds=settings["rounds"],
        in_context_start=_in_context_start(weights, released.file) if start is None else start,
    )
    bits = _bits(released.weights, arguments["side"], network.classes)
    bits["stride"] = settings.get("stride", bits["stride"])
    data = {"network": asdict(network), "bits": bits}
    return parse_recipe(data, GeneratorRecipe, str(released.file)), weights


def _arguments(released: ReleasedWeights) -> dict[str, Any]:
    """Prediction, rounds and the side of the pictures, from the release's training arguments."""
    namespace = released.contents.get("args")
    arguments = vars(namespace) if hasattr(namespace, "__dict__") else {}
    method = arguments.get("method")
    if method not in (None, *METHODS):
        raise CheckpointError(f"{released.file}: was trained by the method {method!r}, expected {' or '.join(METHODS)}")
    known = {"prediction": METHODS.get(str(method)), "rounds": arguments.get("hbq_round")}
    return {key: value for key, value in known.items() if value is not None} | {"side": arguments.get("img_size")}


def _checked(settings: dict[str, Any], file: Path) -> dict[str, Any]:
    """The settings; UsageError where one is missing or out of range."""
    for field in ("prediction", "rounds"):
        if field not in settings:
            raise UsageError(f"{file}: has no {field}; give it with --set {SETTINGS[field]}")
    start = is_count(settings.get("in_context_start", 0)), "the number of a block, counted from 0"
    check_settings(settings, {"in_context_start": start}, file)
    return settings


def _in_context_start(weights: Mapping[str, Tensor], file: Path) -> int:
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    if depth not in CONTEXT_STARTS:
        raise UsageError(
            f"{file}: has {depth} blocks, which no released generator has, so the block before which its in-context "
            "tokens join is unknown; give it with --set in_context_start=N, counted from 0"
        )
    return CONTEXT_STARTS[depth]


def _bits(released: Mapping[str, Tensor], pixels: int | None, classes: int) -> dict[str, Any]:
    """The bits the network was trained on, as far as the file shows: square pictures of numbered classes."""
    side = isqrt(released[POSITIONS].shape[1])
    stride = int(pixels or 16 * side) // side
    return {
        "tokenizer": {},
        "stride": [TIME_STRIDE, stride, stride],
        "labels": [str(number) for number in range(classes)],
        "grids": {f"1x{side}x{side}": 0},
    }


def _release(recipe: GeneratorRecipe, weights: Weights) -> tuple[Weights, dict[str, Any]]:
    """The released positions are those of one grid, and what is predicted is the true bits."""
    network, (name, *more) = recipe.network, recipe.bits.grids
    assert isinstance(network, ClassTransformerConfig)
    grid = parse_grid(name)
    if more or grid is None or grid[0] != 1 or grid[1] != grid[2]:
        raise ValueError(f"bits.grids is {brief(list(recipe.bits.grids))}, expected one grid of square pictures")
    require_true_bits(recipe)
    settings = {name: getattr(network, name) for name in ("prediction", "rounds", "in_context_start")}
    return released_class_generator(weights, network, grid), settings | {"stride": list(recipe.bits.stride)}


CLASS_GENERATORS = ReleasedLayout(
    name="class-conditional generator",
    entries={"ema1": "model_ema1", "ema2": "model_ema2", "model": "model"},
    settings=SETTINGS,
    convert=_convert,
    network=ClassTransformerConfig,
    release=_release,
    plain=("net.blocks.", "net.x_embedder."),
)
