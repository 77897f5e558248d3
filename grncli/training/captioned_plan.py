"""What ``grn train-gen`` trains a text-conditional generator on: settled from stores, captions and features."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grncli.runs.generator_recipe import (
    AskedGeneratorRecipe,
    AskedTextGenerator,
    GeneratorRecipe,
    PackedData,
    TextConditioning,
)
from grncli.runtime.errors import RecipeError, StoreError, UsageError
from grncli.runtime.monitor import Say
from grncli.store import BitStore
from grncli.store.captions import read_captions
from grncli.store.text_features import FeatureStore, open_features
from grncli.training.bit_loader import combine_stores
from grncli.training.captioned_samples import CaptionedSamples, caption_samples, fitting_rows, tokens_needed
from grncli.training.packing import Numbers


@dataclass(frozen=True)
class CaptionedPlan:
    """A recipe whose sizes stores and features have settled, and the samples to train on.

    Parameters
    ----------
    rows : numbers of the samples that have a caption and fit into a sequence
    captions : digests of the stores' captions
    """

    recipe: GeneratorRecipe
    samples: CaptionedSamples
    rows: Numbers
    captions: tuple[str, ...]


def make_captioned_plan(
    recipe: AskedGeneratorRecipe,
    stores: Sequence[BitStore],
    text: Path | None,
    *,
    place: str | None = None,
    allow_incomplete: bool = False,
    say: Say = lambda text: None,
) -> CaptionedPlan:
    """Settle the recipe by stores, captions and features; nothing is written.

    Parameters
    ----------
    stores : whose bits fit the recipe
    text : a features store
    place : path of the recipe, for the command that a message gives
    allow_incomplete : use what an unfinished features store holds so far

    Raises
    ------
    UsageError, StoreError, StoreMismatch, RecipeError
        If there is no features store, or one of another encoder; if captions or their features are lacking; if a
        prompt or a sample is too long.
    """
    network, data = recipe.network, recipe.data
    assert isinstance(network, AskedTextGenerator)
    assert isinstance(data, PackedData)
    if text is None:
        raise UsageError(
            "--text is missing: network.type=text_transformer is trained on captions; give the features store that "
            "grn encode-text made of them"
        )
    features = open_features(text)
    if not features.complete and not allow_incomplete:
        raise StoreError(
            f"{text} is not complete ({len(features)} prompts so far); finish it with grn encode-text, or add "
            "--allow-incomplete"
        )
    settled_text = _settle_text(recipe, features)
    bits, parts = combine_stores(stores)
    captions = [read_captions(store) for store in stores]
    samples = caption_samples(
        stores, captions, parts, features, settled_text, first_frame=recipe.refinement.first_frame > 0, recipe=place
    )
    longest, most = int(samples.counts.lengths.max()), settled_text.max_tokens
    if longest > most:
        raise RecipeError(
            f"{features.path} has prompts of up to {longest} tokens, and the recipe says text.max_tokens={most}; "
            "raise it, or shorten the captions"
        )
    config = network.settle(
        rounds=network.rounds or stores[0].rounds, channels=stores[0].channels, text_width=features.width
    )
    settled = recipe.settle(config, replace(bits, labels=()), settled_text)
    digests = tuple(each.digest() for each in captions)
    return CaptionedPlan(settled, samples, _rows(samples, data, say), digests)


def _settle_text(recipe: AskedGeneratorRecipe, features: FeatureStore) -> TextConditioning:
    """The section text with its encoder; RecipeError where that of the features is another one."""
    text = recipe.text or TextConditioning()
    wanted, encoder = text.encoder.get("sha256"), features.encoder
    if wanted and wanted != encoder["sha256"]:
        raise RecipeError(
            f"{features.path} was made by text encoder {encoder['name']} ({encoder['sha256'][:8]}…), and the recipe "
            f"says text.encoder.sha256={wanted[:8]}…; encode the captions with that one, or leave text.encoder out"
        )
    width = recipe.network.text_width if isinstance(recipe.network, AskedTextGenerator) else None
    if width not in (None, features.width):
        raise RecipeError(
            f"{features.path} has features {features.width} wide, and the recipe says network.text_width={width}; "
            "leave the field out, or encode the captions with another encoder"
        )
    return replace(text, encoder=encoder, max_tokens=min(text.max_tokens, features.settings.max_tokens))


def _rows(samples: CaptionedSamples, data: PackedData, say: Say) -> Numbers:
    """Numbers of the samples to train on; those that are left out are counted."""
    rows, long = fitting_rows(samples, data.tokens)
    lacking = len(samples) - len(rows) - len(long)
    if lacking:
        say(f"{lacking} of {len(samples)} samples have no caption and are left out; add some with grn captions")
    if len(long):
        first = int(long[0])
        needed = f"{samples.key(first)} needs {tokens_needed(samples, first)}, and data.tokens is {data.tokens}"
        if data.too_long == "refuse" or not len(rows):
            more = f" ({len(long) - 1} more samples are too long)" if len(long) > 1 else ""
            raise RecipeError(f"{needed}{more}; raise data.tokens, or leave such samples out with data.too_long=drop")
        say(f"{len(long)} of {len(samples)} samples are too long and left out, the first: {needed}")
    if data.validation >= len(rows):
        raise RecipeError(f"data.validation is {data.validation}, expected less than the {len(rows)} samples")
    return rows
