"""Samples in every form, the real pictures that they are compared with, and networks that see both."""

import shutil
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grncli.evaluation.generation import GenSettings, generation
from grncli.evaluation.measuring import PictureReading
from grncli.media.writing import write_png
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample

# Test modules are imported by path; their shared compared_samples.py needs a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))

from compared_samples import NAMES, READING, Broken, Colours, Spread, Wide, networks_of, noise, save_statistics


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in (Colours(), Spread(), Wide(), Broken()):
            torch.jit.script(module).save(folder / f"{type(module).__name__.lower()}.pt")
    return folder


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", rounds=2)


@pytest.fixture(scope="module")
def forms(networks, tokenizer, make_generator_run, tmp_path_factory):
    """The same 18 samples in every form, and ``real``: 15 pictures of the same size."""
    folder = tmp_path_factory.mktemp("forms")
    run = make_generator_run(folder / "gen", tokenizer)
    settings = SampleOptions(steps=4, guidance=2.0, per_class=6, temperature=1.0, tokenizer=str(tokenizer))
    sample(run, folder / "folder", settings)
    shutil.copytree(folder / "folder" / "samples.zarr", folder / "store")
    files = sorted((folder / "folder").rglob("*.png"))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for file in files:
            archive.write(file, file.relative_to(folder / "folder"))
    np.savez(folder / "array.npz", arr_0=np.stack([np.asarray(Image.open(file)) for file in files]))
    save_statistics(folder / "folder", folder / "statistics.npz", networks / "colours.pt")
    for i in range(15):
        (folder / "real" / NAMES[i % 3]).mkdir(parents=True, exist_ok=True)
        write_png(folder / "real" / NAMES[i % 3] / f"{i:02d}.png", noise(i, i % 3))
    return folder


@pytest.fixture(scope="module")
def real(forms):
    return forms / "real"


@pytest.fixture(scope="module")
def gen(networks, tokenizer):
    def measure(samples, reference, *, features="colours.pt", stop=None, said=None, processes=None, **options):
        """``generation`` without processes of its own, one picture at a time: a batch may round a pixel elsewhere."""
        given = {name: options.pop(name) for name in list(options) if name in READING}
        reading = PictureReading(**{"workers": 0, "tokenizer": str(tokenizer), "batch": 1, **given})
        features = features and (str(networks / features) if features.endswith(".pt") else features)
        settings = GenSettings(reading=reading, networks=networks_of(features), **options)
        others = {} if processes is None else {"processes": processes}
        monitor = Monitor(stop or Stop(), say=(said if said is not None else []).append)
        reference = reference and str(reference)
        return generation(str(samples), reference, settings, monitor=monitor, **others)

    return measure


@pytest.fixture
def mixed(tmp_path):
    """Two sizes by turns, so that each of two processes sees one of them."""
    for i in range(8):
        write_png(tmp_path / f"{i}.png", noise(i, 0, 16, 16 + 8 * (i % 2)))
    return tmp_path


# The command


@pytest.fixture(scope="module")
def options(networks, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return ("--features", networks / "colours.pt", "--workers", 0, "--cache", cache)
