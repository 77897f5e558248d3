"""MiniLM (all-MiniLM-L6-v2), a small BERT, for inference: features of tokens before they are pooled."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grncli.models.products import Linear, attention

VOCABULARY, DEPTH, WIDTH, HEADS, HIDDEN = 30522, 6, 384, 12, 1536
POSITIONS, KINDS = 512, 2
EPSILON = 1e-12  # of the norms


class MiniLM(nn.Module):
    """Token ids to one vector a token."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.vocabulary = WIDTH, VOCABULARY
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.kinds = nn.Embedding(KINDS, WIDTH)  # of sentences, where there are two; a prompt is of the first
        self.norm = nn.LayerNorm(WIDTH, EPSILON)
        self.blocks = nn.ModuleList(BertBlock() for _ in range(DEPTH))

    def forward(self, ids: Tensor) -> Tensor:
        """Ids ``[B, L]`` of prompts of the same length, without padding, to features ``[B, L, width]``."""
        places = torch.arange(ids.shape[1], device=ids.device)
        x = self.norm(self.words(ids) + self.positions(places) + self.kinds.weight[0])
        for block in self.blocks:
            x = block(x)
        return x


class BertBlock(nn.Module):
    """Attention and MLP, each with a norm behind the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.query = Linear(WIDTH, WIDTH)
        self.key = Linear(WIDTH, WIDTH)
        self.value = Linear(WIDTH, WIDTH)
        self.output = Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, EPSILON)
        self.up = Linear(WIDTH, HIDDEN)
        self.down = Linear(HIDDEN, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, L, width]`` to the same shape."""
        q, k, v = (layer(x).unflatten(2, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value))
        x = self.attention_norm(x + self.output(attention(q, k, v).transpose(1, 2).flatten(2)))
        return self.mlp_norm(x + self.down(F.gelu(self.up(x))))
