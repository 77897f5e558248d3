"""Networks that see pictures, and reconstructions measured in this process and by hand."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.reconstruction import ReconSettings, reconstruction
from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.reading import ReadSettings, read_pieces
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop

READING = {field.name for field in fields(PictureReading)} - {"rounds"}


class Colours(nn.Module):
    """Mean and spread of each colour, called as StyleGAN's networks are."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8
        pixels = x.float().flatten(2) / 255
        features = torch.cat([pixels.mean(2), pixels.std(2)], 1)
        return features if return_features else torch.zeros_like(features)


class Alone(nn.Module):
    """The same of the one argument it takes."""

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.float().flatten(2) / 255
        return torch.cat([pixels.mean(2), pixels.std(2)], 1)


def recon(src, *, stop=None, said=None, **options):
    """``reconstruction`` without processes of its own, and without weights that this machine may have."""
    reading = PictureReading(**{"workers": 0, **{name: options.pop(name) for name in list(options) if name in READING}})
    networks = NetworkOptions(features=options.pop("features", None), cache=Path("no/cache"))
    settings = ReconSettings(reading=reading, networks=networks, **options)
    monitor = Monitor(stop or Stop(), say=(said if said is not None else []).append)
    return reconstruction(str(src), settings, monitor=monitor)


def of_run(src, run, **options):
    return recon(src, tokenizer=str(run), **options)


def figures(found):
    return [
        {**{name: (s.mean, s.deviation, s.samples) for name, s in row.spreads.items() if s.samples}, **row.distances}
        for row in found.rows
    ]


def same_figures(found, others):
    for ours, theirs in zip(figures(found), figures(others), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == pytest.approx(theirs[name], rel=1e-6), name


def frechet_by_hand(ours, theirs):
    """From features [n, D] of each side."""
    means = [side.mean(axis=0) for side in (ours, theirs)]
    first, second = (np.cov(side, rowvar=False) for side in (ours, theirs))
    shared = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    return np.square(means[0] - means[1]).sum() + np.trace(first + second) - 2 * shared


def features_of(frames):
    """By hand, of uint8 [H, W, 3]."""
    pixels = frames.reshape(-1, 3).astype(np.float32) / 255
    return np.concatenate([pixels.mean(axis=0), pixels.std(axis=0, ddof=1)]).astype(np.float64)


def frames_of(folder):
    """All frames below a folder, in order."""
    reading = ReadSettings(parse_size("native"), (1, 1, 1))
    sources = list_sources(str(folder)).sources
    return [frame for source in sources for piece in read_pieces(source, reading) for frame in piece.pixels]


def document(text):
    """JSON in the strict sense, which has no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def one_sentence(done, code):
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    return lines[0]
