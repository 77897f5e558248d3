"""Where a training takes the features of its prompts from: a store of them, or an encoder that runs beside it.

A store costs no time and about 0.8 MB a caption of umT5-xxl, so it serves up to about a million captions. Above that,
the encoder runs on-line; of each prompt its length is kept, and where its text stands. Both give the same numbers where
the encoder computes in float32 on a CPU, and numbers that agree within rounding elsewhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grncli.runtime.monitor import Say
from grncli.store.text_features import FeatureStore, as_stored
from grncli.text.prompt_batches import describe_cuts
from grncli.text.prompt_features import EncodedPrompts, PromptFeatures, StoredPrompts
from grncli.text.prompts import shortened
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt
from grncli.training.prompt_places import PromptTexts

TOKENIZED_AT_ONCE = 4096  # prompts whose ids are in memory at a time


@dataclass(frozen=True)
class MeasuredPrompts:
    """What is kept of prompts once they were looked at.

    Attributes
    ----------
    lengths : int32 ``[n]``, tokens of each
    digests : uint8 ``[n, 32]``, by which a store has their features; ``[n, 0]`` where they are computed
    """

    lengths: NDArray[np.int32]
    digests: NDArray[np.uint8]


class TrainingPrompts(ABC):
    """The features of numbered prompts.

    Attributes
    ----------
    lengths : int32 ``[number of prompts]``, tokens of each
    """

    lengths: NDArray[np.int32]

    @abstractmethod
    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        """Features ``[length, width]`` of prompts, float32; -1 is the last one, the empty prompt."""


class PromptSource(ABC):
    """What gives the features of a training.

    Attributes
    ----------
    name : in messages
    encoder : ``{name, sha256}`` of the encoder
    width : of a token's features
    max_tokens : of a prompt
    dtype : name of the number format that the encoder computes in
    features : of further prompts, which have no number
    cuts : where each prompt that is too long for the encoder is cut, by its name in messages
    """

    name: str
    encoder: Mapping[str, str]
    width: int
    max_tokens: int
    dtype: str
    features: PromptFeatures
    cuts: dict[str, str]

    @abstractmethod
    def measure(self, prompts: Sequence[str], store: str, task: str) -> MeasuredPrompts:
        """Look at prompts of a store and task, which are named in messages; UsageError where one has no features."""

    @abstractmethod
    def number(self, texts: PromptTexts, measured: MeasuredPrompts) -> TrainingPrompts:
        """The prompts of ``texts``, and behind them the empty one."""


class StoredSource(PromptSource):
    """Features that ``grn encode-text`` made.

    Parameters
    ----------
    recipe : path of the recipe, for the command that a message gives
    """

    def __init__(self, store: FeatureStore, recipe: str | None = None) -> None:
        self._store, self._recipe = store, recipe
        self.name, self.encoder, self.width = str(store.path), store.encoder, store.width
        self.max_tokens, self.dtype = store.settings.max_tokens, store.settings.dtype
        self.features, self.cuts = StoredPrompts(store, recipe=recipe), {}

    def measure(self, prompts: Sequence[str], store: str, task: str) -> MeasuredPrompts:
        """The digests of prompts; UsageError that names lacking ones and the command that adds them."""
        # Which of the two others a caption is of, encode-text sees by itself.
        named = task if task == "first-frame" else "image"
        known = StoredPrompts(self._store, prompts=store, recipe=self._recipe, task=named)
        digests = known.digests(prompts)
        lengths = self._store.lengths(digests).astype(np.int32)
        return MeasuredPrompts(lengths, np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32))

    def number(self, texts: PromptTexts, measured: MeasuredPrompts) -> TrainingPrompts:
        """The rows of the prompts."""
        return _StoredTrainingPrompts(self._store, measured)


class _StoredTrainingPrompts(TrainingPrompts):
    def __init__(self, store: FeatureStore, measured: MeasuredPrompts) -> None:
        self._store, self._digests, self.lengths = store, measured.digests, measured.lengths

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        return self._store.read([self._digests[number].tobytes().hex() for number in numbers])


class OnlineSource(PromptSource):
    """An encoder that computes features when a step needs them.

    ``say`` is called with one sentence where prompts are cut.
    """

    def __init__(self, encoder: TextEncoder, say: Say = lambda text: None) -> None:
        self._encoder, self._say = encoder, say
        self.name, self.encoder, self.width = (
            f"text encoder {encoder.identity['name']}",
            encoder.identity,
            encoder.width,
        )
        self.max_tokens, self.dtype = encoder.max_tokens, encoder.dtype
        self.features, self.cuts = EncodedPrompts(encoder, say), {}

    def measure(self, prompts: Sequence[str], store: str, task: str) -> MeasuredPrompts:
        """Count the tokens of prompts."""
        lengths = list[int]()
        for first in range(0, len(prompts), TOKENIZED_AT_ONCE):
            some = prompts[first : first + TOKENIZED_AT_ONCE]
            for prompt, each in zip(some, self._encoder.tokenize(some), strict=True):
                lengths.append(len(each.ids))
                if each.cut_at is not None:
                    self.cuts[f"prompt {shortened(prompt)}"] = each.cut_at
        return MeasuredPrompts(np.array(lengths, np.int32), np.empty((len(lengths), 0), np.uint8))

    def number(self, texts: PromptTexts, measured: MeasuredPrompts) -> TrainingPrompts:
        """The prompts, whose text is read when a step needs it."""
        if self.cuts:
            self._say(describe_cuts(list(self.cuts.items()), self._encoder.max_tokens))
        return _EncodedTrainingPrompts(self._encoder, texts, measured.lengths)


class _EncodedTrainingPrompts(TrainingPrompts):
    def __init__(self, encoder: TextEncoder, texts: PromptTexts, lengths: NDArray[np.int32]) -> None:
        self._encoder, self._texts, self.lengths = encoder, texts, lengths
        (self._empty,) = self._encode(encoder.tokenize([""]))  # a tenth of all samples has it

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        last = len(self.lengths) - 1
        distinct = [number for number in dict.fromkeys(number % (last + 1) for number in numbers) if number != last]
        tokenized = self._encoder.tokenize(self._texts.of(distinct)) if distinct else []
        features = dict(zip(distinct, self._encode(tokenized), strict=True)) | {last: self._empty}
        return [features[number % (last + 1)] for number in numbers]

    def _encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Tensor]:
        return [as_stored(each) for each in self._encoder.encode(prompts)]
