"""The prompts of a search, and their features: computed once, so that the encoder leaves before the generator comes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grncli.models.text_transformer import TextTransformerConfig
from grncli.models.transformer import Grid
from grncli.runs.generator_recipe import TextConditioning
from grncli.runs.recipe_first import OpenedGenerator
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Say
from grncli.sampling.from_text.text_plan import free_memory, open_prompt_features, require_features, task_of
from grncli.sampling.from_text.text_prompts import finished, given_prompts, negative_prompt, texts_digest
from grncli.sampling.settings import SampleOptions
from grncli.text.prompt_features import PromptFeatures
from grncli.text.prompts import STANDARD_INPUT, prompts_digest, read_prompts


class RememberedPrompts(PromptFeatures):
    """Features that a source gave once, of which nothing else is kept."""

    def __init__(self, source: PromptFeatures, prompts: Sequence[str]) -> None:
        self.encoder, self.width = dict(source.encoder), source.width
        distinct = list(dict.fromkeys(prompts))
        self._features = dict(zip(distinct, source.of(distinct), strict=True))

    def of(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features of prompts that were among the first; KeyError for others."""
        return [self._features[prompt] for prompt in prompts]


@dataclass(frozen=True)
class SearchedPrompts:
    """What a search samples instead of classes.

    Parameters
    ----------
    count : of the prompts
    about : what tells them from others
    features : of a generator of texts
    """

    count: int
    about: Mapping[str, Any]
    features: PromptFeatures | None = None

    @classmethod
    def of(cls, opened: OpenedGenerator, options: SampleOptions, grid: Grid, say: Say) -> "SearchedPrompts | None":
        """The prompts of the options, which have the defaults of the run; None for a search of classes.

        Raises
        ------
        UsageError, StoreError, CheckpointError
            Where the prompts or the source of features do not fit.
        """
        recipe = opened.recipe
        if options.prompts == STANDARD_INPUT:
            raise UsageError("--prompts -: each point of the grid reads the prompts again, expected a file")
        if not isinstance(recipe.network, TextTransformerConfig):
            if options.prompts is None:
                return None
            named = read_prompts(options.prompts)
            return cls(len(named), {"prompts": prompts_digest(named)})
        task = task_of(recipe.text or TextConditioning(), options, grid)
        prompts = finished(given_prompts(options.prompt, options.prompts), task)
        negative = negative_prompt(options.negative_prompt or "")
        source = open_prompt_features(options, opened.run, say)
        require_features(source, recipe, opened.run)
        features = RememberedPrompts(source, [*(prompt.final for prompt in prompts), negative])
        del source
        free_memory()
        about = {"prompts": texts_digest(prompts), "negative_prompt": negative, "encoder": features.encoder["sha256"]}
        return cls(len(prompts), about, features)

    def __len__(self) -> int:
        return self.count

    def described(self) -> dict[str, Any]:
        """For the manifest of a search."""
        return dict(self.about)
