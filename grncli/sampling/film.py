"""The refinement of a few samples, step by step: the picture beside the map of what each step did (paper Fig. 4)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grncli.decoding.store_decoding import decode_index
from grncli.media.selection import evenly_spread
from grncli.media.writing import Frames, contact_sheet, write_mp4, write_png
from grncli.models.tokenizer import Tokenizer
from grncli.refinement import BLANK, ERASED, FILLED, KEPT, REFINED, changes
from grncli.sampling.sampler import FinishedSample, TraceStep
from grncli.tokens import TokenCodec

# The paper's pink, blue, yellow and grey; green for what it does not show, accepted tokens that changed.
COLOURS = {
    FILLED: ("filled", (240, 150, 170)),
    KEPT: ("kept", (110, 160, 220)),
    REFINED: ("refined", (120, 190, 130)),
    ERASED: ("erased", (245, 205, 90)),
    BLANK: ("blank", (205, 205, 205)),
}
SAMPLES = 4
CELL = 192
FPS = 8.0
STILL = 8  # frames that the last step stays
SHOWN_STEPS = 8  # on the picture


def write_film(path: Path, samples: Sequence[FinishedSample], tokenizer: Tokenizer, codec: TokenCodec) -> list[Path]:
    """Write the refinement of traced samples as MP4, and the same as PNG beside it, at a few steps.

    In the film each sample has a row: what its prediction would look like, its state with what is still random, and
    the map, in which a token is a square of its channels. Returns the files.
    """
    strips = [_strip(sample.trace, tokenizer, codec) for sample in samples]
    last = max(len(strip) for strip in strips)
    frames = []
    for step in range(last):
        rows = [list(strip[min(step, len(strip) - 1)]) for strip in strips]
        frames.append(contact_sheet([*rows, _legend()], _captions(rows, step), cell=CELL))
    film = np.stack([_even(frame) for frame in [*frames, *[frames[-1]] * STILL]])
    write_mp4(path, film, FPS)
    still = path.with_suffix(".png")
    write_png(still, _still(samples, strips))
    return [path, still]


def change_map(before: TraceStep | None, after: TraceStep) -> Frames:
    """What a step did to each channel of each token, uint8 ``[h s, w s, 3]``: a token is a square of s x s channels.

    Of a clip, its middle latent frame. ``before`` is None for the first step, where everything was blank.
    """
    if before is None:
        empty = torch.zeros_like(after.selection)
        done = changes(empty, after.drawing, after.selection, after.drawing)
    else:
        done = changes(before.selection, before.drawing, after.selection, after.drawing)
    return _squares(done[:, done.shape[1] // 2])


def _squares(channels: Tensor) -> Frames:
    count, height, width = channels.shape
    side = int(np.ceil(np.sqrt(count)))
    table = np.full((len(COLOURS) + 1, 3), 255, np.uint8)  # the last for places without a channel
    for change, (_, colour) in COLOURS.items():
        table[change] = colour
    filled = np.full((side * side, height, width), len(COLOURS), np.uint8)
    filled[:count] = channels.numpy()
    picture = filled.reshape(side, side, height, width).transpose(2, 0, 3, 1).reshape(height * side, width * side)
    # A line between tokens.
    coloured = table[picture]
    scale = max(1, CELL // max(coloured.shape[:2]))
    coloured = coloured.repeat(scale, axis=0).repeat(scale, axis=1)
    coloured[:: side * scale] = coloured[:, :: side * scale] = 255
    return coloured


def _strip(trace: Sequence[TraceStep], tokenizer: Tokenizer, codec: TokenCodec) -> list[tuple[Frames, Frames, Frames]]:
    """Prediction, state and map of each step."""
    strip, device = [], next(tokenizer.parameters()).device
    for before, step in zip([None, *trace], trace, strict=False):
        index = codec.to_index(torch.stack([step.drawing, step.state])).to(device)
        frames = decode_index(tokenizer, index, codec.rounds)
        prediction, state = frames[:, frames.shape[1] // 2]
        strip.append((prediction, state, change_map(before, step)))
    return strip


def _still(samples: Sequence[FinishedSample], strips: Sequence[Sequence[tuple[Frames, Frames, Frames]]]) -> Frames:
    rows, captions = [], []
    for sample, strip in zip(samples, strips, strict=True):
        shown = evenly_spread(SHOWN_STEPS, len(strip))
        for part in (0, 2):
            rows.append([strip[step][part] for step in shown])
        captions += [""] * len(shown)
        captions += [f"step {step + 1}, {sample.trace[step].ratio:.0%}" for step in shown]
    captions += [name for name, _ in COLOURS.values()]
    return contact_sheet([*rows, _legend()], captions, cell=CELL // 2)


def _captions(rows: Sequence[Sequence[Frames]], step: int) -> list[str]:
    heads = [f"prediction, step {step + 1}", "state", "map"]
    return [*[""] * (sum(map(len, rows)) - 3), *heads, *(name for name, _ in COLOURS.values())]


def _legend() -> list[Frames]:
    return [np.full((16, 48, 3), colour, np.uint8) for _, colour in COLOURS.values()]


def _even(frame: Frames) -> Frames:
    """Padded with white to even sides: not every player shows odd ones."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), constant_values=255)
