"""Generators as run directories."""

from collections.abc import Mapping
from dataclasses import asdict
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grncli.hbq import MAX_ROUNDS
from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.kinds import NetworkKind, ReleasedWeights
from grncli.runs.loading import Loaded, open_run
from grncli.runs.recipe import parse_recipe
from grncli.runs.released_names import POSITIONS, generator_config, generator_weights
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.monitor import Say
from grncli.tokens import Prediction

SETTINGS = {"in_context_start": "in_context_start=4", "rounds": "rounds=4", "prediction": "prediction=ind"}
CONTEXT_STARTS = {12: 4, 24: 8, 32: 10, 40: 10}  # of the released depths
TIME_STRIDE = 4  # of the released tokenizers
METHODS: dict[str, Prediction] = {"GRN_ind": "ind", "GRN_bit": "bit"}

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
        In evaluation mode, float32. It takes ``state [B, channels, T, h, w]`` (categories), the selection ratio
        ``[B]`` and ``label [B]`` (the number of classes is the null class), and gives logits
        ``[B, K, channels, T, h, w]``; see its ``config``.

    Raises
    ------
    CheckpointError
        If there is no such run, or its weights are damaged or do not fit its recipe.
    """
    return open_generator(run, weights).network.to(device)


def open_generator(run: str | Path, weights: str = "ema", *, say: Say = lambda text: None) -> LoadedGenerator:
    """As `load_generator` on the CPU, with the recipe, the step and the identity of the weights that were read.

    ``say`` is called with one sentence where the training is not finished.
    """
    return open_run(run, GENERATOR, weights=weights, say=say)


def build_generator(config: ClassTransformerConfig | TextTransformerConfig) -> Generator:
    """The network of these sizes, initialized for training."""
    if isinstance(config, TextTransformerConfig):
        return TextTransformer(config)
    return ClassTransformer(config)


def _build(recipe: GeneratorRecipe) -> Generator:
    return build_generator(recipe.network)


def _facts(recipe: GeneratorRecipe) -> dict[str, Any]:
    network, bits = recipe.network, recipe.bits
    return {
        "prediction": network.prediction,
        "rounds": network.rounds,
        "channels": network.channels,
        "classes": network.classes,
        "stride": list(bits.stride),
        "grids": bits.grids,
        "tokenizer": bits.tokenizer,
    }


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
    data = {
        "network": asdict(network),
        "bits": _bits(released.weights, arguments["side"], network.classes),
        "imported": released.imported,
    }
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
    expected = {
        "prediction": (settings["prediction"] in METHODS.values(), " or ".join(METHODS.values())),
        "rounds": (_is_count(settings["rounds"]) and 1 <= settings["rounds"] <= MAX_ROUNDS, f"1 to {MAX_ROUNDS}"),
        "in_context_start": (
            _is_count(settings.get("in_context_start", 0)),
            "the number of a block, counted from 0",
        ),
    }
    for field, (right, wanted) in expected.items():
        if not right:
            raise UsageError(f"{file}: {field} is {settings[field]!r}, expected {wanted}; change it with --set")
    return settings


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


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


GENERATOR = NetworkKind(
    name="generator",
    schema=GeneratorRecipe,
    build=_build,
    facts=_facts,
    sections=("kind", "network", "bits", "imported"),
    entries={"ema1": "model_ema1", "ema2": "model_ema2", "model": "model"},
    settings=SETTINGS,
    convert=_convert,
)
