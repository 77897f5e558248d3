"""The text-conditional generator (paper sections 4.3 and 4.4; facts sections 4 and 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from grncli.hbq import MAX_ROUNDS
from grncli.models.generator import Generator
from grncli.tokens import Prediction, TokenCodec

Attention = Literal["text-only", "full"]


@dataclass(frozen=True, kw_only=True)
class TextTransformerShape:
    """Sizes of the network that do not depend on the bits it learns. The defaults are the released 2B."""

    type: Literal["text_transformer"] = "text_transformer"
    prediction: Prediction = "bit"
    attention: Attention = "full"  # text-only: text tokens attend to text alone, the release of May
    chunks: int = 7  # groups of as many blocks each, which only the released files' names show
    depth: int = 28
    width: int = 2304
    heads: int = 18
    key_value_heads: int = 18
    hidden: int = 8192  # of the MLP
    text_width: int = 4096  # of the text encoder's features


@dataclass(frozen=True, kw_only=True)
class TextTransformerConfig(TextTransformerShape):
    """All sizes of the network."""

    rounds: int  # M
    channels: int  # C

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise ValueError(f"rounds is {self.rounds}, expected 1 to {MAX_ROUNDS}")

    @property
    def classes(self) -> int:
        """None: it knows texts."""
        return 0

    @property
    def null_class(self) -> int:
        """The label of every sample."""
        return 0

    @property
    def codec(self) -> TokenCodec:
        """What a token holds."""
        return TokenCodec(self.prediction, self.rounds, self.channels)


@dataclass(frozen=True)
class TextMemory:
    """What the network keeps of a text between steps: its projected features, or keys and values of every block."""


class TextTransformer(Generator):
    """GRN_bit or GRN_ind for text."""

    config: TextTransformerConfig

    def __init__(self, config: TextTransformerConfig) -> None:
        super().__init__()
        self.config = config

    def remember(self, text: Sequence[Tensor]) -> list[TextMemory]:
        """What of each text ``[length, text_width]`` does not depend on the state, to be computed once."""
        raise NotImplementedError

    def forward(
        self, state: Tensor, ratio: Tensor, text: Sequence[Tensor | TextMemory], *, clean_first: bool = False
    ) -> Tensor:
        """Logits of the true category of every channel of every token, given a map of which a share is true (Eq. 5).

        Parameters
        ----------
        state : integers ``[B, channels, T, h, w]``, categories 0 to K - 1
        ratio : float ``[B]``, the share of true ones, 0 to 1
        text : for each sample the encoder's features ``[length, text_width]``, or what `remember` made of them
        clean_first : the first frame of the state is true: it joins the sequence as the clean first frame, only the
            later ones are predicted, and its own logits are certain of it

        Returns
        -------
        ``[B, K, channels, T, h, w]``
        """
        raise NotImplementedError
