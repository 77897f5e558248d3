"""In how many clips the figure moves as its class or its prompt says, by the way of what is most colourful.

    python directions.py FOLDER...

Each FOLDER has MP4 files: one that `grn sample` made by prompt, or one with a folder for each class. The answer is a
JSON document.
"""

import json
import sys
from pathlib import Path

import numpy as np
from measure import listed
from numpy.typing import NDArray

from grncli.demo.shape_sets import DIRECTIONS
from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.reading import ReadSettings, read_pieces


def middle(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where (x, y) the colour of a frame ``[H, W, 3]`` is, beside its muted ground."""
    colour = np.ptp(frame.astype(np.float64), axis=-1)
    weight = (colour - np.median(colour)).clip(0) ** 2
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def direction(frames: NDArray[np.uint8]) -> str:
    """The direction that is nearest to the way from the first frame to the last, ``[T, H, W, 3]``."""
    way = middle(frames[-1]) - middle(frames[0])
    return max(DIRECTIONS, key=lambda name: float(way @ DIRECTIONS[name]))


def measure(folder: Path) -> dict[str, object]:
    """Share of clips that move as asked for."""
    right = []
    for clip in listed(folder, "mp4"):
        (source,) = list_sources(str(folder / clip["file"])).sources
        pixels = next(read_pieces(source, ReadSettings(parse_size("native"), (1, 1, 1)))).pixels
        words = clip.get("prompt", clip.get("class", "").replace("-", " ")).split()
        right.append(direction(pixels) in words)
    return {"clips": len(right), "right": float(np.mean(right))}


if __name__ == "__main__":
    print(json.dumps({folder: measure(Path(folder)) for folder in sys.argv[1:]}, indent=1))
