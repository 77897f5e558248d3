"""Pictures, their bits and what comes back of them, and networks that see both."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from grncli.decoding.store_decoding import DecodeSettings, decode
from grncli.media.writing import write_png
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize

# Test modules are imported by path; their shared compared_pairs.py needs a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))

from compared_pairs import Alone, Colours


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in (Colours(), Alone()):
            torch.jit.script(module).save(folder / f"{type(module).__name__.lower()}.pt")
    return folder


@pytest.fixture(scope="module")
def colours(networks):
    return str(networks / "colours.pt")


@pytest.fixture(scope="module")
def stills(draw_picture, tmp_path_factory):
    """Thirteen pictures of 16x16; the last is a JPEG."""
    folder = tmp_path_factory.mktemp("stills") / "in"
    folder.mkdir()
    for i in range(12):
        write_png(folder / f"{i:02d}.png", draw_picture(i))
    Image.fromarray(draw_picture(12)).save(folder / "12.jpg")
    return folder


@pytest.fixture(scope="module")
def store(stills, run_dir):
    path = stills.with_name("bits.zarr")
    tokenize(str(stills), path, run_dir, TokenizeSettings(workers=0, batch=1))
    return path


@pytest.fixture(scope="module")
def decoded(store, run_dir):
    """One at a time, as a batch of another size may round a pixel elsewhere."""
    folder = store.with_name("out")
    decode(store, folder, run_dir, DecodeSettings(batch=1))
    assert (folder / "12.jpg.png").is_file()
    return folder
