"""How many drawings show the colour and the shape that they are to show, as a classifier sees them.

    python measure.py CLASSIFIER FOLDER...

Each FOLDER is one that `grn sample` made, by class or by prompt, or has a folder for each class. The answer is a JSON
document; a sample by prompt is right where its colour and its shape are those whose names its prompt has.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from grncli.demo.shape_sets import SETS
from grncli.demo.wordings import GROUP

COLOURS, SHAPES = SETS["easy"].colours, SETS["easy"].shapes


def asked_for(sample: dict[str, str]) -> str:
    """The class of a sample: its own, or the one that its prompt names."""
    if "class" in sample:
        return sample["class"]
    words = set(sample["prompt"].split())
    named = [[name for name in names if name in words] for names in (COLOURS, SHAPES)]
    return f"{named[0][0]}-{named[1][0]}" if all(map(len, named)) else GROUP


def listed(folder: Path, suffix: str = "png") -> list[dict[str, str]]:
    """The files of a folder, with the class or the prompt of each."""
    if (folder / "samples.json").exists():
        return list(json.loads((folder / "samples.json").read_text(encoding="utf-8"))["samples"])
    files = sorted(folder.rglob(f"*.{suffix}"))
    return [{"file": str(file.relative_to(folder)), "class": file.parent.name} for file in files]


def measure(classifier: torch.jit.ScriptModule, folder: Path) -> dict[str, object]:
    """Shares of right drawings, right colours and right shapes, and the share of right ones of each class."""
    samples = listed(folder)
    pictures = np.stack([np.asarray(Image.open(folder / sample["file"]).convert("RGB")) for sample in samples])
    with torch.inference_mode():
        parts = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(256)
        found = torch.cat([classifier(part).argmax(dim=1) for part in parts]).tolist()
    pairs = [(classifier.classes[number], asked_for(sample)) for number, sample in zip(found, samples, strict=True)]
    classes: dict[str, list[bool]] = {}
    for seen, wanted in pairs:
        classes.setdefault(wanted, []).append(seen == wanted)
    # A group is neither a colour nor a shape: it is counted as itself.
    halves = [[seen.split("-")[half] == wanted.split("-")[half] for seen, wanted in pairs] for half in (0, 1)]
    return {
        "samples": len(samples),
        "right": float(np.mean([seen == wanted for seen, wanted in pairs])),
        "colour": float(np.mean(halves[0])),
        "shape": float(np.mean(halves[1])),
        "classes": {name: float(np.mean(right)) for name, right in sorted(classes.items())},
        "wrong": [sample["file"] for sample, (seen, wanted) in zip(samples, pairs, strict=True) if seen != wanted],
    }


def main() -> None:
    """Measure every folder."""
    classifier = torch.jit.load(sys.argv[1])
    print(json.dumps({folder: measure(classifier, Path(folder)) for folder in sys.argv[2:]}, indent=1))


if __name__ == "__main__":
    main()
