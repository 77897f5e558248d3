"""Features of prompts without a network: each is told by the letters of its prompt."""

from hashlib import sha256

import torch

from grncli.text.prompt_features import PromptFeatures

WIDTH = 6


class ToyFeatures(PromptFeatures):
    """One token a word, and one at the end."""

    def __init__(self, name="toy", width=WIDTH):
        self.encoder = {"name": name, "sha256": sha256(name.encode()).hexdigest()}
        self.width = width
        self.asked = []

    def of(self, prompts):
        self.asked.append(list(prompts))
        return [self._features(prompt) for prompt in prompts]

    def _features(self, prompt):
        ids = torch.tensor([int(sha256(word.encode()).hexdigest()[:6], 16) for word in (*prompt.split(), "")])
        return torch.sin(ids[:, None].double() * torch.arange(1, self.width + 1)).float() * 3
