"""How well pictures show what their texts say: the cosine between the features of two encoders of the user's.

Hessel et al. 2021, "CLIPScore: A Reference-free Evaluation Metric for Image Captioning": w * max(cos, 0), there with
w = 2.5; here with 100, as torchmetrics and most reports of text-to-image models have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize

from grncli.metrics.exported_networks import TENSOR, TEXTS, ExportedNetwork, checked_vectors, exactly, load_exported
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.files import read_plain
from grncli.runtime.text import one_line
from grncli.text.optional_packages import text_package
from grncli.text.prompt_batches import length_batches
from grncli.text.prompts import shortened

SCALE = 100.0
BATCH = 32  # frames of a pass, or texts without tokens to count
MAX_VOCABULARY_BYTES = 256 << 20


class TextImageNetwork:
    """An image encoder and a text encoder whose features compare.

    The image encoder takes uint8 ``[n, 3, H, W]`` of any size, which it scales and normalizes itself. The text encoder
    takes a list of n texts, or int64 token ids ``[n, L]`` of n texts of L tokens each, by ``tokenizer``. Both give
    float ``[n, D]``.
    """

    def __init__(
        self, image: ExportedNetwork, text: ExportedNetwork, tokenizer: "TextIds | None", device: torch.device
    ) -> None:
        self._image = image
        self._text = text
        self._tokenizer = tokenizer
        self._device = device

    def about(self) -> dict[str, Any]:
        """Which files it consists of, and what they are given, for reports."""
        tokenizer = {} if self._tokenizer is None else {"tokenizer": self._tokenizer.about()}
        return {
            "image": self._image.about(),
            "text": self._text.about(),
            **tokenizer,
            "input": "pictures as decoded (what the network does inside is not known)",
        }

    def images(self, frames: Tensor) -> Tensor:
        """Directions of frames, uint8 ``[n, H, W, 3]``: float64 ``[n, D]`` of length 1 (0 for features of zeros).

        Raises
        ------
        GrnError
            If the encoder fails, or gives anything but one vector of finite numbers for each.
        """
        pictures = rearrange(frames.to(self._device), "n h w c -> n c h w").contiguous()
        with exactly():
            return torch.cat([_directions(self._image, batch) for batch in torch.split(pictures, BATCH)])

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Directions of texts, like those of `images`."""
        batches: Sequence[Sequence[int]]
        if self._tokenizer is None:
            given: list[Any] = list(texts)
            batches = [range(i, min(i + BATCH, len(texts))) for i in range(0, len(texts), BATCH)]
        else:
            # Texts of one length together: what a network makes of padding is not known.
            given = [self._tokenizer(text) for text in texts]
            batches = list(length_batches([len(ids) for ids in given]))
        directions: dict[int, Tensor] = {}
        with exactly():
            for batch in batches:
                x: Any = [given[place] for place in batch]
                x = x if self._tokenizer is None else torch.tensor(x, device=self._device)
                directions.update(zip(batch, _directions(self._text, x), strict=True))
        return torch.stack([directions[place] for place in range(len(texts))])

    def score(self, images: Tensor, texts: Tensor) -> Tensor:
        """100 * max(cos, 0) between directions ``[..., D]`` of pictures and texts; UsageError where D differs."""
        if images.shape[-1] != texts.shape[-1]:
            raise UsageError(
                f"{self._image.name} gives {images.shape[-1]} numbers for a picture and {self._text.name} "
                f"{texts.shape[-1]} for a text, expected as many; give the two encoders of one model"
            )
        return SCALE * (images * texts).sum(dim=-1).clamp(min=0)


@dataclass(frozen=True)
class TextIds:
    """A ``tokenizer.json``, whose own padding and truncation hold."""

    name: str
    sha256: str
    model: Any
    """A ``tokenizers.Tokenizer``."""

    @classmethod
    def read(cls, file: Path) -> "TextIds":
        """The tokenizer of a file; CheckpointError where it is none."""
        tokenizers = text_package("tokenizers")
        try:
            content = read_plain(file, MAX_VOCABULARY_BYTES)
            model = tokenizers.Tokenizer.from_buffer(content or b"")
        except Exception as error:  # the package raises nothing more special
            raise CheckpointError(
                f"{file}: cannot be read as a tokenizer ({one_line(error, 120)}), expected a tokenizer.json"
            ) from None
        return cls(file.name, sha256(content or b"").hexdigest(), model)

    def __call__(self, text: str) -> list[int]:
        """Ids of a text with its special tokens; UsageError for a text of none."""
        ids: list[int] = self.model.encode(text).ids
        if not ids:
            raise UsageError(f"{self.name}: gives no token for the prompt {shortened(text)}, expected one or more")
        return ids

    def about(self) -> dict[str, str]:
        """Which file it is, for reports."""
        return {"name": self.name, "sha256": self.sha256}


def load_text_image_network(
    image: Path, text: Path, tokenizer: Path | None = None, *, device: str | torch.device = "cpu"
) -> TextImageNetwork:
    """Two encoders from files, TorchScript or .pt2, which are programs: use files of people you trust.

    Parameters
    ----------
    tokenizer : a ``tokenizer.json`` for a text encoder that takes token ids

    Raises
    ------
    CheckpointError
        If a file is damaged, or its network takes something else; see `TextImageNetwork`.
    UsageError
        If the text encoder takes ids and there is no ``tokenizer``, or the other way round.
    """
    device = torch.device(device)
    images, texts = load_exported(image, device), load_exported(text, device)
    if images.takes != TENSOR:
        raise CheckpointError(f"{image}: takes {images.takes}, expected an image encoder of a tensor")
    if texts.takes not in (TENSOR, TEXTS):
        raise CheckpointError(
            f"{text}: takes {texts.takes}, expected a text encoder of token ids (a tensor) or texts ({TEXTS})"
        )
    if texts.takes == TENSOR and tokenizer is None:
        raise UsageError(f"{text} takes token ids, which need --text-image-tokenizer FILE, its tokenizer.json")
    if texts.takes == TEXTS and tokenizer is not None:
        raise UsageError(f"--text-image-tokenizer {tokenizer}: {text} takes texts as they are; leave the option out")
    return TextImageNetwork(images, texts, None if tokenizer is None else TextIds.read(tokenizer), device)


def _directions(network: ExportedNetwork, batch: Any) -> Tensor:
    vectors = checked_vectors(network.name, "features", network(batch), len(batch))
    return normalize(vectors.cpu().double(), dim=1)
