"""Stores of random bits with captions, and features of these."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grncli.store import Fingerprint, open_part
from grncli.store.captions import Caption, CaptionLine, replace_captions
from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import open_feature_part
from grncli.text.templates import final_prompt, prompt_digest

SQUARE, WIDE, CLIP = (1, 2, 2), (1, 2, 3), (3, 2, 2)
WIDTH = 6
WORDS = ("", "a wide blue ring on grey", "one")
TASKS = {"image": ("<T2I>", ""), "clip": ("<T2V>", " Good."), "first-frame": ("<I2V>", "")}


def caption(number: int) -> tuple[str, ...]:
    """The captions of a source: as many as its number says, 0 to 2."""
    return tuple(f"{WORDS[number % 3]} {kind}" for kind in range(number % 3))


def make_store(path: Path, counts: dict[tuple[int, int, int], int], first: int = 0, **changes: Any) -> Path:
    """A store of random bits; a third of the sources has no caption."""
    made = {
        "rounds": 2,
        "channels": 3,
        "stride": (1, 16, 16),
        "tokenizer": {"name": "toy", "sha256": "3f9c" * 16},
        "preprocessing": {},
        "labels": (),
        "versions": {},
    }
    fingerprint = Fingerprint(**{**made, **changes})
    lines = []
    with open_part(path, fingerprint) as writer:
        for grid, count in counts.items():
            shape = (count, *grid, fingerprint.rounds, fingerprint.channels)
            planes = np.random.default_rng(count).integers(0, 2, shape, np.uint8)
            sources = [f"{grid[0]}-{grid[2]}-{row + first}.png" for row in range(count)]
            records = [{"key": source, "source": source} for source in sources]
            writer.append(grid, np.packbits(planes, axis=-1), np.full(count, -1), records)
            texts = [caption(row + first) for row in range(count)]
            lines += [
                CaptionLine(source, tuple(Caption(None, each) for each in own))
                for source, own in zip(sources, texts, strict=True)
                if own
            ]
        writer.commit(1, "0" * 64, 1)
        writer.finish()
    replace_captions({path / "part-00000": lines})
    return path


def make_features(
    path: Path, tasks: tuple[str, ...] = tuple(TASKS), width: int = WIDTH, finals: Sequence[str] = ()
) -> Path:
    """Features of all captions of these tasks, or of those final prompts: a token for each word."""
    texts = {each for number in range(9) for each in caption(number)}
    made = {final_prompt(text, *TASKS[task]) for text in texts for task in tasks} | {""}
    settings = FeatureSettings({"name": "toy", "sha256": "a0" * 32}, width, "float32", 32)
    by_length: dict[int, list[str]] = {}
    for final in sorted(finals or made):
        by_length.setdefault(max(1, len(final.split())), []).append(final)
    with open_feature_part(path, settings) as writer:
        for length, prompts in sorted(by_length.items()):
            numbers = np.random.default_rng(length).normal(size=(len(prompts), length, width))
            writer.append(torch.from_numpy(numbers.astype(np.float32)), prompts, list(map(prompt_digest, prompts)))
            writer.commit(writer.position + 1, "")
        writer.finish()
    return path
