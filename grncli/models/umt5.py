"""The encoder of umT5 (arXiv 2304.09151; facts section 8), for inference.

A T5 encoder: RMSNorm before every layer, attention whose scores are not scaled, a gated MLP, no biases. What is
particular about it:

- every block has its own table of biases for the distance between two tokens, which are added to the scores;
- there are no other positions, so prompts of any length can be read.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grncli.models.products import Linear
from grncli.models.transformer import RMSNorm

BUCKETS = 32  # of distances, half of them for tokens that follow
FARTHEST = 128  # distance that starts none of its own: beyond it, all are alike


@dataclass(frozen=True, kw_only=True)
class Umt5Config:
    """Sizes of the network. The defaults are umT5-xxl."""

    vocabulary: int = 256384
    depth: int = 24
    width: int = 4096
    heads: int = 64
    head_width: int = 64
    hidden: int = 10240


class Umt5Encoder(nn.Module):
    """Token ids to one vector a token."""

    def __init__(self, config: Umt5Config) -> None:
        super().__init__()
        self.width, self.vocabulary = config.width, config.vocabulary
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(Umt5Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.width)

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, L]`` of prompts of the same length, without padding, to features ``[B, L, width]``."""
        buckets = distance_buckets(ids.shape[1]).to(ids.device)
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, buckets)
        return self.norm(x)


class Umt5Block(nn.Module):
    """Attention and MLP, each behind a norm."""

    def __init__(self, config: Umt5Config) -> None:
        super().__init__()
        width, inner = config.width, config.heads * config.head_width
        self.heads = config.heads
        self.attention_norm = RMSNorm(width)
        self.query = Linear(width, inner, bias=False)
        self.key = Linear(width, inner, bias=False)
        self.value = Linear(width, inner, bias=False)
        self.distances = nn.Embedding(BUCKETS, config.heads)
        self.output = Linear(inner, width, bias=False)
        self.mlp_norm = RMSNorm(width)
        self.gate = Linear(width, config.hidden, bias=False)
        self.up = Linear(width, config.hidden, bias=False)
        self.down = Linear(config.hidden, width, bias=False)

    def forward(self, x: Tensor, buckets: Tensor) -> Tensor:
        """``x [B, L, width]`` and ``buckets [L, L]`` (see `distance_buckets`) to ``[B, L, width]``."""
        x = x + self._attend(self.attention_norm(x), buckets)
        inner = self.mlp_norm(x)
        return x + self.down(_gelu(self.gate(inner)) * self.up(inner))

    def _attend(self, x: Tensor, buckets: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        bias = self.distances(buckets).permute(2, 0, 1)[None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return self.output(mixed.transpose(1, 2).flatten(2))


def _gelu(x: Tensor) -> Tensor:
    """GELU by its tanh formula.

    In float32 without the fused kernel, which on a CPU rounds the last few elements of what a thread computes in
    another way than the others, so that a prompt's features would depend on its place in a batch.
    """
    if x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x * x * x)))


def distance_buckets(length: int) -> Tensor:
    """Row of the table of biases for each query (rows) and key (columns): int64 ``[length, length]``, 0 to 31.

    Half of the rows are for keys that follow the query. The first distances have rows of their own, the further ones
    share them, in steps that grow evenly on a logarithmic scale up to ``FARTHEST``.
    """
    positions = torch.arange(length)
    distance = positions[None, :] - positions[:, None]
    starts = torch.tensor(_bucket_starts(BUCKETS // 2))
    return torch.bucketize(distance.abs(), starts, right=True) + (distance > 0) * (BUCKETS // 2)


def _bucket_starts(count: int) -> list[int]:
    """The smallest distance of each bucket but the first, for one direction.

    With e buckets of a single distance, the k-th of the n others starts at e (FARTHEST / e)^(k / n). Whole numbers,
    because logarithms may round to the wrong side of 16, 32 and 64.
    """
    alone = count // 2
    shared = count - alone
    starts = list(range(1, alone + 1))
    for k in range(1, shared):
        least = alone ** (shared - k) * FARTHEST**k
        starts.append(next(distance for distance in range(alone, FARTHEST) if distance**shared >= least))
    return starts
