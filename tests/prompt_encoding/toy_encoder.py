"""A text encoder of whole words whose features are told by each word and its place, and a run of the stage with it."""

import hashlib

import torch

from grncli.prompt_encoding.prompt_plan import EncodeTextSettings
from grncli.prompt_encoding.prompt_stage import encode_text
from grncli.text.text_encoder import TextEncoder, TokenizedPrompt

WIDTH, MOST = 6, 8
PROMPTS = [f"{'very ' * (number % 4)}red star {number}" for number in range(40)]


class ToyEncoder(TextEncoder):
    """One token a word and one at the end."""

    def __init__(self, name="toy", width=WIDTH, most=MOST):
        self.identity = {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        self.width, self.max_tokens = width, most
        self.batches = []

    def tokenize(self, prompts):
        words = [prompt.split() for prompt in prompts]
        most = self.max_tokens - 1
        return [
            TokenizedPrompt(
                (*(int(hashlib.sha256(word.encode()).hexdigest()[:7], 16) for word in some[:most]), 1),
                some[most] if len(some) > most else None,
            )
            for some in words
        ]

    def encode(self, prompts):
        self.batches.append(len(prompts))
        return [self.features(prompt.ids) for prompt in prompts]

    def features(self, ids):
        ids = torch.tensor(ids, dtype=torch.float64)
        return torch.sin(ids[:, None] * torch.arange(1, self.width + 1)).float() * 3


def run(prompts, out, encoder=None, monitor=None, **settings):
    """Encode a file of prompts with a toy."""
    return encode_text(
        str(prompts), out, lambda: encoder or ToyEncoder(), EncodeTextSettings(**settings), monitor=monitor
    )


def write(path, prompts=PROMPTS):
    path.write_text("".join(f"{prompt}\n" for prompt in prompts))
    return path
