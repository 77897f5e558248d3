"""What ``grn train-gen`` trains a text-conditional generator on: settled from stores, captions and features."""

from collections.abc import Callable, Sequence
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
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.store import BitStore
from grncli.store.text_features import FeatureStore, open_features
from grncli.text.prompt_features import PromptFeatures
from grncli.text.text_encoder import TextEncoder
from grncli.training.bit_loader import combine_stores
from grncli.training.captioned_samples import CaptionedSamples, fitting_rows, tokens_needed
from grncli.training.collecting_prompts import collect_prompts
from grncli.training.packing import Numbers
from grncli.training.training_prompts import OnlineSource, PromptSource, StoredSource


@dataclass(frozen=True)
class CaptionedPlan:
    """A recipe whose sizes stores and features have settled, and the samples to train on.

    Parameters
    ----------
    rows : numbers of the samples that have a caption and fit into a sequence
    captions : digests of the stores' captions
    features : of further prompts, such as those of previews
    features_dtype : name of the number format that features are computed in
    """

    recipe: GeneratorRecipe
    samples: CaptionedSamples
    rows: Numbers
    captions: tuple[str, ...]
    features: PromptFeatures
    features_dtype: str


def make_captioned_plan(
    recipe: AskedGeneratorRecipe,
    stores: Sequence[BitStore],
    text: Path | None,
    open_encoder: Callable[[], TextEncoder] | None = None,
    *,
    place: str | None = None,
    allow_incomplete: bool = False,
    say: Say = lambda text: None,
    processes: Processes = SINGLE_PROCESS,
) -> CaptionedPlan:
    """Settle the recipe by stores, captions and features; nothing is written.

    Parameters
    ----------
    stores : whose bits fit the recipe
    text : a features store
    open_encoder : in its place
    place : path of the recipe, for the command that a message gives
    allow_incomplete : use what an unfinished features store holds so far
    processes : which share the work of counting; all call this with the same arguments

    Raises
    ------
    UsageError, StoreError, StoreMismatch, RecipeError
        If there is neither features store nor encoder, or one that does not fit the recipe; if captions or their
        features are lacking; if a prompt or a sample is too long.
    """
    data, asked_text = recipe.data, recipe.text or TextConditioning()
    assert isinstance(data, PackedData)
    stored = None if text is None else _open_features(text, allow_incomplete)
    if stored is None and open_encoder is None:
        raise UsageError(
            "--text is missing: network.type=text_transformer is trained on captions; give the features store that "
            "grn encode-text made of them, or a --text-encoder"
        )
    bits, parts = combine_stores(stores)
    source: PromptSource
    if stored is not None:
        source = StoredSource(stored, place)
    else:
        assert open_encoder is not None
        source = OnlineSource(open_encoder(), say)
    network = recipe.network
    assert isinstance(network, AskedTextGenerator)
    settled_text = _settle_text(asked_text, network, source)
    first_frame = recipe.refinement.first_frame > 0
    found = collect_prompts(stores, parts, asked_text, source, first_frame=first_frame, processes=processes)
    longest, most = int(found.counts.lengths.max()), settled_text.max_tokens
    if longest > most:
        raise RecipeError(
            f"{source.name}: prompts have up to {longest} tokens, and the recipe says text.max_tokens={most}; raise "
            "it, or shorten the captions"
        )
    samples = CaptionedSamples(parts, found.counts, found.prompts)
    config = network.settle(
        rounds=network.rounds or stores[0].rounds, channels=stores[0].channels, text_width=source.width
    )
    settled = recipe.settle(config, replace(bits, labels=()), settled_text)
    return CaptionedPlan(settled, samples, _rows(samples, data, say), found.digests, source.features, source.dtype)


def _open_features(path: Path, allow_incomplete: bool) -> FeatureStore:
    features = open_features(path)
    if not features.complete and not allow_incomplete:
        raise StoreError(
            f"{path} is not complete ({len(features)} prompts so far); finish it with grn encode-text, or add "
            "--allow-incomplete"
        )
    return features


def _settle_text(text: TextConditioning, network: AskedTextGenerator, source: PromptSource) -> TextConditioning:
    """The section text with its encoder; RecipeError where that of the features is another one."""
    wanted, encoder = text.encoder.get("sha256"), source.encoder
    if wanted and wanted != encoder["sha256"]:
        raise RecipeError(
            f"{source.name}: its features are of text encoder {encoder['name']} ({encoder['sha256'][:8]}…), and the "
            f"recipe says text.encoder.sha256={wanted[:8]}…; encode the captions with that one, or leave text.encoder "
            "out"
        )
    if network.text_width not in (None, source.width):
        raise RecipeError(
            f"{source.name}: its features are {source.width} wide, and the recipe says "
            f"network.text_width={network.text_width}; leave the field out, or encode the captions with another encoder"
        )
    return replace(text, encoder=dict(encoder), max_tokens=min(text.max_tokens, source.max_tokens))


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
