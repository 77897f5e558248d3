"""Where the features of prompts come from: an encoder, or a store of what one made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor


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
