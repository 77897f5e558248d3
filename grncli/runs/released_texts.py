"""The released text-conditional generators: importing them and checkpoints of their trainers, and writing others."""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from grncli.models.text_transformer import TextTransformerConfig
from grncli.runs.generator_recipe import GeneratorRecipe, TextConditioning
from grncli.runs.kinds import ReleasedLayout, ReleasedWeights, Weights
from grncli.runs.recipe import parse_recipe
from grncli.runs.release_settings import check_settings, require_true_bits
from grncli.runs.released_names import text_config, text_weights
from grncli.runs.released_weights import released_text_generator
from grncli.runs.text_releases import FPS, STRIDE, UMT5_WIDTH, KnownText, recognize_text
from grncli.store import parse_grid

# Examples; what is in a section is set for each kind of sample.
BITS = {"stride": "stride=[4,16,16]", "fps": "fps=16", "grid": "grid=1x64x64"}
NETWORK = {"attention": "attention=text-only", "rounds": "rounds=4", "prediction": "prediction=bit"}
CONDITIONING = {
    "max_tokens": "max_tokens=512",
    "tokenizers": "tokenizers=[FILE.ckpt]",
    "schedule": "schedule=cosine",
    "cosine_end": "cosine_end=0.999",
}
TASK = {"guidance": "clip.guidance=4.0", "temperature": "clip.temperature=1.0"}
TASK_TEXTS = {
    "prefix": "clip.prefix=<T2V>",
    "suffix": "clip.suffix=TEXT",
    "negative_prompt": "clip.negative_prompt=TEXT",
}
TASKS = ("image", "clip", "first_frame")
ENCODER = {"encoder.name": "encoder.name=umt5-xxl", "encoder.sha256": "encoder.sha256=HASH"}
TEXTS = {**ENCODER, **{f"{task}.{name}": example for task in TASKS for name, example in TASK_TEXTS.items()}}
SETTINGS = {
    **NETWORK,
    **BITS,
    **CONDITIONING,
    **TEXTS,
    **{f"{task}.{name}": example for task in TASKS for name, example in TASK.items()},
}


def _convert(released: ReleasedWeights) -> tuple[GeneratorRecipe, Weights]:
    """Sizes are those of the weights; what they do not show follows from the file's name or from the settings."""
    file = released.file
    settings: dict[str, Any] = {"prediction": "bit", "rounds": 4, **released.settings}
    known = recognize_text(file, settings.pop("attention", None))
    grid = settings.pop("grid", known.grid)
    is_grid = isinstance(grid, str) and parse_grid(grid) is not None
    sha256 = settings.get("encoder.sha256", "")
    expected = {
        "grid": (is_grid, "tokens as TxHxW"),
        "encoder.sha256": (not sha256 or re.fullmatch("[0-9a-f]{64}", sha256) is not None, "64 hexadecimal digits"),
    }
    check_settings({**settings, "grid": grid}, expected, file)
    weights = text_weights(released.weights)
    network = text_config(
        weights, attention=known.attention, prediction=settings.pop("prediction"), rounds=settings.pop("rounds")
    )
    bits = {"tokenizer": {}, "stride": STRIDE, "labels": (), "grids": {grid: 0}, "fps": FPS}
    bits |= {name: settings.pop(name) for name in BITS if name in settings}
    data = {"network": asdict(network), "bits": bits, "text": _conditioning(known, network.text_width, settings)}
    return parse_recipe(data, GeneratorRecipe, str(file)), weights


def _conditioning(known: KnownText, text_width: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's section ``text``: the conventions of the release, changed by settings with dotted names."""
    release = known.release
    text: dict[str, Any] = {
        "encoder": {"name": "umt5-xxl"} if text_width == UMT5_WIDTH else {},
        "tokenizers": known.tokenizers,
        **{task: asdict(getattr(release, task)) for task in TASKS},
        "cosine_end": release.cosine_end,
    }
    for field, value in settings.items():
        section, _, name = field.rpartition(".")
        (text[section] if section else text)[name] = value
    return text


def _release(recipe: GeneratorRecipe, weights: Weights) -> tuple[Weights, dict[str, Any]]:
    """Of several grids the one with most samples is told, which is what is sampled by default."""
    network, bits = recipe.network, recipe.bits
    text = recipe.text or TextConditioning()
    assert isinstance(network, TextTransformerConfig)
    require_true_bits(recipe)
    settings = {name: getattr(network, name) for name in NETWORK}
    settings |= {"stride": list(bits.stride), "fps": bits.fps, "grid": max(bits.grids, key=bits.grids.__getitem__)}
    settings |= {name: getattr(text, name) for name in CONDITIONING}
    settings |= {name: text.encoder[name.removeprefix("encoder.")] for name in ENCODER if name[8:] in text.encoder}
    settings |= {
        f"{task}.{name}": getattr(getattr(text, task), name) for task in TASKS for name in (*TASK_TEXTS, *TASK)
    }
    return released_text_generator(weights, network), settings


TEXT_GENERATORS = ReleasedLayout(
    name="text-conditional generator",
    entries={"ema": "trainer.gpt_ema_fsdp", "model": "trainer.gpt_fsdp"},
    plain=("block_chunks.", "text_proj."),
    settings=SETTINGS,
    texts=tuple(TEXTS),
    convert=_convert,
    network=TextTransformerConfig,
    release=_release,
)
