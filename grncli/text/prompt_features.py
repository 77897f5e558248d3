"""Where the features of prompts come from: an encoder, or a store of what one made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from shlex import quote

from torch import Tensor

from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Say
from grncli.store.text_features import FeatureStore
from grncli.text.encoder_files import MINILM
from grncli.text.prompt_batches import describe_cuts, length_batches
from grncli.text.prompts import shortened
from grncli.text.templates import prompt_digest
from grncli.text.text_encoder import TextEncoder

SHOWN_LACKING = 3


class PromptFeatures(ABC):
    """Features of prompts in their final form: templates applied, cleaned.

    Attributes
    ----------
    encoder : ``{name, sha256}`` of the encoder that makes or made them
    width : of a token's features
    """

    encoder: Mapping[str, str]
    width: int

    @abstractmethod
    def of(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features ``[length, width]`` of each prompt, float32 on the CPU; UsageError for one that there is none of."""


class EncodedPrompts(PromptFeatures):
    """Features that an encoder makes when they are asked for, of each distinct prompt of a call once.

    ``say`` is called with one sentence where prompts are cut.
    """

    def __init__(self, encoder: TextEncoder, say: Say = lambda text: None) -> None:
        self._encoder = encoder
        self._say = say
        self.encoder = encoder.identity
        self.width = encoder.width

    def of(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features ``[length, width]`` of each prompt, float32 on the CPU; the same tensor for the same prompt."""
        distinct = list(dict.fromkeys(prompts))
        tokenized = self._encoder.tokenize(distinct)
        cuts = [
            (f"prompt {shortened(prompt)}", each.cut_at)
            for prompt, each in zip(distinct, tokenized, strict=True)
            if each.cut_at is not None
        ]
        if cuts:
            self._say(describe_cuts(cuts, self._encoder.max_tokens))
        features: dict[str, Tensor] = {}
        for batch in length_batches([len(each.ids) for each in tokenized]):
            encoded = self._encoder.encode([tokenized[i] for i in batch])
            features.update({distinct[i]: each.cpu() for i, each in zip(batch, encoded, strict=True)})
        return [features[prompt] for prompt in prompts]


class StoredPrompts(PromptFeatures):
    """Features from a store.

    Parameters
    ----------
    prompts, recipe, task : what the command line that adds lacking prompts names: the file, the run or recipe whose
        templates were applied, and which of them
    """

    def __init__(
        self, store: FeatureStore, *, prompts: str = "PROMPTS", recipe: str | None = None, task: str = "image"
    ) -> None:
        self._store = store
        self._command = _adding_command(store, prompts, recipe, task)
        self.encoder = store.encoder
        self.width = store.width

    def of(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features of each prompt; UsageError that names the first ones that the store lacks."""
        return self._store.read(self.digests(prompts))

    def digests(self, prompts: Sequence[str]) -> list[str]:
        """By which the store has each prompt; UsageError that names the first ones that it lacks."""
        digests = [prompt_digest(prompt) for prompt in prompts]
        there = self._store.find(digests) >= 0
        lacking = list(
            dict.fromkeys(prompt for prompt, known in zip(prompts, there.tolist(), strict=True) if not known)
        )
        if lacking:
            more = len(lacking) - SHOWN_LACKING
            named = ", ".join(map(shortened, lacking[:SHOWN_LACKING])) + (f" and {more} more" if more > 0 else "")
            raise UsageError(
                f"{self._store.path}: lacks {len(lacking)} of {len(set(prompts))} prompts: {named}; "
                f"add them with: {self._command}"
            )
        return digests


def _adding_command(store: FeatureStore, prompts: str, recipe: str | None, task: str) -> str:
    settings = store.settings
    encoder = MINILM if settings.encoder["name"] == MINILM else "DIR"
    options = f" --recipe {quote(recipe)}" if recipe is not None else ""
    options += f" --task {task}" if recipe is not None and task != "image" else ""
    options += f" --dtype {settings.dtype}" if settings.dtype != "float32" else ""
    options += f" --part i/{settings.parts}" if settings.parts > 1 else ""
    return f"grn encode-text {quote(prompts)} {quote(str(store.path))} --text-encoder {encoder}{options}"
