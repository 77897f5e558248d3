"""A small classifier of pictures in class folders, as a feature network for `grn eval --features`.

    python recipes/feature_network.py digits/train digits.pt --size 32 --test digits/test

It is one TorchScript file that takes uint8 pictures [B, 3, H, W] and gives, as the Inception of StyleGAN's evaluation
does, 64 features (return_features=True) or class probabilities. For data that Inception says little about.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.reading import ReadSettings, read_pieces
from grncli.media.sources import sorted_names
from grncli.runtime.files import whole_file


class Classifier(nn.Module):
    """Four convolutions and a hidden layer."""

    classes: list[str]

    def __init__(self, classes: list[str]) -> None:
        super().__init__()
        self.classes = classes  # saved with the network: class agreement goes by name
        widths, layers = (3, 32, 64, 128, 128), []
        for stage, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if stage < 3 else []
        self.body = nn.Sequential(*layers)
        self.hidden = nn.Sequential(nn.Linear(128, 64), nn.ReLU())
        self.output = nn.Linear(64, len(classes))

    def forward(self, pictures: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        """Features [B, 64], or probabilities [B, classes], for the Inception Score those of the weights alone."""
        x = self.body(pictures.float() / 127.5 - 1)
        features = self.hidden(x.mean(dim=(2, 3)))
        logits = self.output(features)
        if no_output_bias:
            logits = logits - self.output.bias
        return features if return_features else logits.softmax(dim=1)


def worn(pictures: Tensor, random: torch.Generator) -> Tensor:
    """Pictures uint8 ``[B, 3, H, W]`` as a lossy copy may have them, each blurred and noisy by an amount of its own."""
    count = len(pictures)
    x = pictures.float()
    soft = nn.functional.avg_pool2d(nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = 1.5 * torch.rand(count, 1, 1, 1, generator=random)
    noise = 12 * torch.rand(count, 1, 1, 1, generator=random) * torch.randn(x.shape, generator=random)
    return (x + blur * (soft - x) + noise).clamp(0, 255).to(torch.uint8)


def read(src: str, size: str) -> tuple[Tensor, Tensor, list[str]]:
    """All pictures uint8 [N, 3, H, W], their classes [N], and the names of these."""
    sources = list_sources(src).sources
    names = sorted_names({source.label for source in sources if source.label is not None})
    numbers = {name: number for number, name in enumerate(names)}
    settings = ReadSettings(parse_size(size), (1, 1, 1))
    pixels = [next(read_pieces(source, settings)).pixels[0] for source in sources]
    labels = [numbers[source.label or ""] for source in sources]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels), names


def accuracy(network: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """Share of pictures assigned to their class."""
    network.eval()
    with torch.inference_mode():
        found = torch.cat([network(part).argmax(dim=1) for part in pictures.split(256)])
    return float((found == labels).float().mean())


def main() -> None:
    """Train, say how good it is, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("out")
    parser.add_argument("--test")
    parser.add_argument("--size", default="32")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--worn", action="store_true", help="learn from blurred and noisy copies, to judge samples by")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    random = torch.Generator().manual_seed(options.seed)
    pictures, labels, names = read(options.train, options.size)
    network = Classifier(names)
    steps = options.epochs * -(-len(labels) // 128)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for epoch in range(options.epochs):
        network.train()
        for rows in torch.randperm(len(labels)).split(128):
            batch = worn(pictures[rows], random) if options.worn else pictures[rows]
            loss = torch.log(network(batch).gather(1, labels[rows, None]) + 1e-9).neg().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    if options.test:
        print(f"right on {accuracy(network, *read(options.test, options.size)[:2]):.1%} of {options.test}")
    with whole_file(Path(options.out)) as temporary:
        torch.jit.script(network.eval()).save(str(temporary))


if __name__ == "__main__":
    main()
