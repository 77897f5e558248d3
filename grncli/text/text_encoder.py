"""What every text encoder is: prompts in, one vector for each of their tokens out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from grncli.text.cleaning import cleaned


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt as the encoder reads it.

    Parameters
    ----------
    ids : with the special tokens, at most ``max_tokens``
    cut_at : the first word that did not fit, None where all did
    """

    ids: tuple[int, ...]
    cut_at: str | None = None


class TextEncoder(ABC):
    """A text encoder and its tokenizer.

    Attributes
    ----------
    identity : ``{name, sha256}``; the hash is that of all files that features depend on
    width : of a token's features
    max_tokens : of a prompt, with the special ones
    dtype : name of the number format that it computes in
    """

    identity: dict[str, str]
    width: int
    max_tokens: int
    dtype: str = "float32"

    @abstractmethod
    def tokenize(self, prompts: Sequence[str]) -> list[TokenizedPrompt]:
        """Token ids of prompts that are cleaned already; the empty prompt has its special tokens only."""

    @abstractmethod
    def encode(self, prompts: Sequence[TokenizedPrompt]) -> list[Tensor]:
        """Features ``[length, width]`` of each prompt, float32 on the encoder's device; none depends on the others."""

    def __call__(self, prompts: Sequence[str]) -> list[Tensor]:
        """Features ``[length, width]`` of each prompt, float32, of prompts as people write them: they are cleaned."""
        return self.encode(self.tokenize([cleaned(prompt) for prompt in prompts]))
