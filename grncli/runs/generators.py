"""Generators as run directories."""

from pathlib import Path
from typing import Any

import torch

from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.generator import Generator
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.runs.generator_recipe import GeneratorRecipe
from grncli.runs.kinds import NetworkKind
from grncli.runs.loading import Loaded, identify_network, open_run, read_newest, read_run
from grncli.runs.released_classes import CLASS_GENERATORS
from grncli.runs.released_texts import TEXT_GENERATORS
from grncli.runtime.monitor import Say

LoadedGenerator = Loaded[Generator, GeneratorRecipe]


def load_generator(
    run: str | Path,
    device: str | torch.device = "cpu",
    weights: str = "ema",
    dtype: torch.dtype = torch.float32,
) -> Generator:
    """The generator of a run directory (its newest checkpoint's moving average), ready for inference.

    Parameters
    ----------
    run : run directory, or one of its checkpoints
    device : where to put it
    weights : ``ema``, ``ema2`` (the second moving average, where there is one) or ``weights``
    dtype : of its weights, float32 or bfloat16; they are converted one by one while they are read

    Returns
    -------
    Generator
        In evaluation mode. It takes ``state [B, channels, T, h, w]`` (categories), the selection ratio ``[B]`` and what
        it is conditioned on, and gives logits ``[B, K, channels, T, h, w]``; see its ``config``. The condition of a
        class-conditional one is ``label [B]`` (the number of classes is the null class), that of a text-conditional
        one a list of B float tensors ``[length, text_width]``, features of a text encoder.

    Raises
    ------
    CheckpointError
        If there is no such run, or its weights are damaged or do not fit its recipe.
    """
    return open_generator(run, weights, device=device, dtype=dtype).network


def open_generator(
    run: str | Path,
    weights: str = "ema",
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    say: Say = lambda text: None,
) -> LoadedGenerator:
    """As `load_generator`, with the recipe, the step and the identity of the weights that were read.

    ``say`` is called with one sentence where the training is not finished.
    """
    return open_run(run, GENERATOR, weights=weights, device=device, dtype=dtype, say=say)


def identify_generator(run: str | Path) -> LoadedGenerator:
    """As `open_generator`, without its weights: see `identify_network`."""
    return read_newest(Path(run), lambda checkpoint: identify_network(read_run(Path(run), checkpoint, [GENERATOR])))


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
        # How text attends shows nowhere else.
        **({"attention": network.attention} if isinstance(network, TextTransformerConfig) else {}),
    }


def _sections(recipe: GeneratorRecipe) -> tuple[str, ...]:
    return "kind", "network", "bits", *(() if recipe.text is None else ("text",)), "imported"


GENERATOR = NetworkKind(
    name="generator",
    schema=GeneratorRecipe,
    build=_build,
    facts=_facts,
    sections=_sections,
    layouts=(CLASS_GENERATORS, TEXT_GENERATORS),
)
