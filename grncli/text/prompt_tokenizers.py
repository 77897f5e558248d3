"""Prompts to token ids, by the vocabulary files that text encoders are published with."""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

from grncli.runtime.errors import CheckpointError
from grncli.runtime.text import one_line
from grncli.text.optional_packages import text_package
from grncli.text.text_encoder import TokenizedPrompt

LONGEST_WORD = 40  # characters of a word that a message names; languages without spaces have no shorter ones
PAD, END = 0, 1  # of umT5
REASON = 120  # characters of another library's error in a message


class PromptTokenizer(ABC):
    """Splits prompts into tokens, and puts special ones round them.

    Attributes
    ----------
    vocabulary : one more than the largest id
    max_tokens : of a prompt, with the special ones; a longer one loses its end, but not what stands behind it

    Parameters
    ----------
    before, after : ids of the special tokens that stand round a prompt
    """

    vocabulary: int

    def __init__(self, before: Sequence[int], after: Sequence[int], max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._before, self._after = tuple(before), tuple(after)

    def tokenize(self, prompt: str) -> TokenizedPrompt:
        """A cleaned prompt as the encoder reads it."""
        ids = self._ids(prompt)
        room = self.max_tokens - len(self._before) - len(self._after)
        cut_at = self._first_lost(prompt, room) if len(ids) > room else None
        return TokenizedPrompt((*self._before, *ids[:room], *self._after), cut_at)

    @abstractmethod
    def _ids(self, prompt: str) -> Sequence[int]:
        """Ids without special ones."""

    def _first_lost(self, prompt: str, room: int) -> str:
        """The first word that is not whole among the first ``room`` tokens; of an endless one what is lost.

        Tokens do not reach over spaces, so that the tokens of the first words are the first tokens.
        """

        def exceeds(text: str) -> bool:
            return len(self._ids(text)) > room

        words = prompt.split(" ")
        kept = bisect_left(range(len(words)), True, key=lambda last: exceeds(" ".join(words[: last + 1])))
        word = words[kept]
        if len(word) > LONGEST_WORD:
            before = " ".join([*words[:kept], ""])
            word = word[bisect_left(range(len(word)), True, key=lambda last: exceeds(before + word[: last + 1])) :]
        return word[:LONGEST_WORD]


class SentencePieceTokenizer(PromptTokenizer):
    """umT5's ``spiece.model``, through sentencepiece."""

    def __init__(self, file: Path, content: bytes, max_tokens: int) -> None:
        super().__init__((), (END,), max_tokens)
        self._model = text_package("sentencepiece").SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(content)
        except RuntimeError as error:
            raise CheckpointError(
                f"{file}: cannot be read as a sentencepiece model ({one_line(error, REASON)}); get it again"
            ) from None
        self.vocabulary = self._model.get_piece_size()
        _require_umt5(file, self._model.pad_id(), self._model.eos_id())

    def _ids(self, prompt: str) -> Sequence[int]:
        ids: list[int] = self._model.encode(prompt)
        return ids


class JsonTokenizer(PromptTokenizer):
    """A ``tokenizer.json``, through tokenizers.

    Parameters
    ----------
    before, after : names of the special tokens that stand round a prompt
    """

    def __init__(
        self, file: Path, content: bytes, max_tokens: int, *, before: Sequence[str], after: Sequence[str]
    ) -> None:
        tokenizers = text_package("tokenizers")
        try:
            self._model = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # older versions raise nothing more special
            raise CheckpointError(
                f"{file}: cannot be read as a tokenizer ({one_line(error, REASON)}); get it again"
            ) from None
        self._model.no_padding()
        self._model.no_truncation()
        self._model.encode_special_tokens = True  # a prompt that spells one does not mean it
        ids = self._model.get_vocab(with_added_tokens=True)
        self.vocabulary = max(ids.values(), default=-1) + 1
        missing = [token for token in (*before, *after) if token not in ids]
        if missing:
            raise CheckpointError(f"{file}: lacks the token {missing[0]}, expected the tokenizer of the encoder")
        super().__init__([ids[token] for token in before], [ids[token] for token in after], max_tokens)

    @classmethod
    def of_umt5(cls, file: Path, content: bytes, max_tokens: int) -> "JsonTokenizer":
        """umT5's."""
        tokenizer = cls(file, content, max_tokens, before=(), after=("</s>",))
        _require_umt5(file, tokenizer._model.token_to_id("<pad>"), *tokenizer._after)
        return tokenizer

    def _ids(self, prompt: str) -> Sequence[int]:
        # Some would make a token of the space that they put in front.
        ids: list[int] = self._model.encode(prompt, add_special_tokens=False).ids if prompt else []
        return ids


def _require_umt5(file: Path, pad: int | None, end: int | None) -> None:
    if (pad, end) != (PAD, END):
        raise CheckpointError(
            f"{file}: has the padding token at {pad} and </s> at {end}, expected {PAD} and {END} as umT5's has them"
        )
