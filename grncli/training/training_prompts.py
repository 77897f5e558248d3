"""Where a training takes the features of its prompts from: a store of them, or an encoder that runs beside it.

A store costs no time and about 0.8 MB a caption of umT5-xxl, so it serves up to about a million captions. Above that,
the encoder runs on-line from token ids, 4 bytes each. Both give the same numbers where the encoder computes in float32
on a CPU, and numbers that agree within rounding elsewhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grncli.runtime.monitor import Say
from grncli.store.text_features import FeatureStore, as_stored
from grncli.text.prompt_batches import describe_cuts
from grncli.text.prompt_features import EncodedPrompts, PromptFeatures, StoredPrompts
from grncli.text.prompts import shortened
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt

TOKENIZED_AT_ONCE = 4096  # prompts whose ids are Python's numbers at a time


class PromptTable:
    """The prompts of a training in their final form, by number; the empty one is the last, so that -1 finds it.

    Attributes
    ----------
    prompts : each distinct list of captions has its own, side by side
    makers : store and task of each, for messages
    """

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.makers: list[tuple[str, str]] = []

    def add(self, prompts: Sequence[str], store: str, task: str) -> int:
        """The number of the first of these prompts."""
        first = len(self.prompts)
        self.prompts += prompts
        self.makers += [(store, task)] * len(prompts)
        return first


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
    features : of further prompts, which are in no table
    """

    name: str
    encoder: Mapping[str, str]
    width: int
    max_tokens: int
    dtype: str
    features: PromptFeatures

    @abstractmethod
    def number(self, table: PromptTable) -> TrainingPrompts:
        """The prompts of a table; UsageError where one has no features."""


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
        self.features = StoredPrompts(store, recipe=recipe)

    def number(self, table: PromptTable) -> TrainingPrompts:
        """The rows of the prompts; UsageError that names lacking ones and the command that adds them."""
        digests = [""] * len(table.prompts)
        for store, task in dict.fromkeys(table.makers):
            own = [i for i, maker in enumerate(table.makers) if maker == (store, task)]
            # Which of the two others a caption is of, encode-text sees by itself.
            named = task if task == "first-frame" else "image"
            known = StoredPrompts(self._store, prompts=store, recipe=self._recipe, task=named)
            for i, digest in zip(own, known.digests([table.prompts[i] for i in own]), strict=True):
                digests[i] = digest
        return _StoredTrainingPrompts(self._store, digests)


class _StoredTrainingPrompts(TrainingPrompts):
    def __init__(self, store: FeatureStore, digests: Sequence[str]) -> None:
        self._store, self._digests = store, digests
        self.lengths = store.lengths(digests).astype(np.int32)

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        return self._store.read([self._digests[number] for number in numbers])


class OnlineSource(PromptSource):
    """An encoder that computes features when a step needs them, from token ids made once.

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
        self.features = EncodedPrompts(encoder, say)

    def number(self, table: PromptTable) -> TrainingPrompts:
        """The token ids of the prompts."""
        blocks, lengths, cuts = list[NDArray[np.int32]](), list[int](), dict[str, str]()
        for first in range(0, len(table.prompts), TOKENIZED_AT_ONCE):
            some = table.prompts[first : first + TOKENIZED_AT_ONCE]
            tokenized = self._encoder.tokenize(some)
            blocks.append(np.array([number for each in tokenized for number in each.ids], np.int32))
            lengths += [len(each.ids) for each in tokenized]
            cuts |= {
                f"prompt {shortened(prompt)}": each.cut_at
                for prompt, each in zip(some, tokenized, strict=True)
                if each.cut_at is not None
            }
        if cuts:
            self._say(describe_cuts(list(cuts.items()), self._encoder.max_tokens))
        return _EncodedTrainingPrompts(self._encoder, np.concatenate(blocks), np.array(lengths, np.int32))


class _EncodedTrainingPrompts(TrainingPrompts):
    def __init__(self, encoder: TextEncoder, ids: NDArray[np.int32], lengths: NDArray[np.int32]) -> None:
        self._encoder, self._ids, self.lengths = encoder, ids, lengths
        self._ends = np.cumsum(lengths, dtype=np.int64)
        (self._empty,) = self._encode([len(lengths) - 1])  # a tenth of all samples has it

    def read(self, numbers: Sequence[int]) -> list[Tensor]:
        last = len(self.lengths) - 1
        distinct = [number for number in dict.fromkeys(number % (last + 1) for number in numbers) if number != last]
        features = dict(zip(distinct, self._encode(distinct), strict=True)) | {last: self._empty}
        return [features[number % (last + 1)] for number in numbers]

    def _encode(self, numbers: Sequence[int]) -> list[Tensor]:
        tokens = [self._ids[self._ends[number] - self.lengths[number] : self._ends[number]] for number in numbers]
        return [as_stored(each) for each in self._encoder.encode([TokenizedPrompt(tuple(t.tolist())) for t in tokens])]
