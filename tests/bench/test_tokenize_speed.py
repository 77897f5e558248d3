"""``grn tokenize`` beside the network alone, and its memory beside the number of sources: pytest -m bench -s."""

import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grncli.hbq import pack, quantize
from grncli.media.batches import BATCH_PIXELS
from grncli.models.aspect_ratios import TEMPLATES
from grncli.models.tokenizer import Tokenizer, TokenizerConfig, to_input
from grncli.runs.checkpoint import write_checkpoint
from grncli.runs.recipe import dump_recipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize

pytestmark = pytest.mark.bench


def make_run(folder: Path, **config: object) -> Tokenizer:
    network = Tokenizer(TokenizerConfig(**config), 4).eval().requires_grad_(False)
    recipe = TokenizerRecipe(network=network.config, imported={"file": "drawn"})
    write_checkpoint(folder, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(network.config))
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return network


def photographs(folder: Path, count: int, size: int) -> Path:
    """JPEGs with the detail of a photograph, so that decoding them costs what it does in life."""
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 1, (size * 2, size * 2, 3)).cumsum(0).cumsum(1)
    noise = ((noise - noise.min()) / np.ptp(noise) * 255).astype(np.uint8)
    for i in range(count):
        y, x = (i * 37) % size, (i * 91) % size
        Image.fromarray(noise[y : y + size, x : x + size]).save(folder / f"{i:06d}.jpg", quality=90)
    return folder


def test_tokenize_beside_the_network_alone(tmp_path: Path) -> None:
    """Every stage but the network should hide behind it: at most 1.2 times its time."""
    network = make_run(tmp_path / "run", encoder_width=24, decoder_width=24)
    media = photographs(tmp_path / "media", 128, 256)
    frames = torch.stack([torch.from_numpy(np.array(Image.open(f))) for f in sorted(media.iterdir())])[:, None]
    batch = BATCH_PIXELS // 256**2

    def alone() -> float:
        began = time.monotonic()
        with torch.inference_mode():
            for start in range(0, len(frames), batch):
                feature = network.encode(to_input(frames[start : start + batch]))
                pack(quantize(feature, 4), 4)
        return time.monotonic() - began

    def whole(name: str) -> float:
        return tokenize(str(media), tmp_path / name, tmp_path / "run", TokenizeSettings(size="256")).seconds

    alone(), whole("warm.zarr")
    times = [(alone(), whole(f"{i}.zarr")) for i in range(5)]
    ratio = statistics.median(b / a for a, b in times)
    print(f"\ntokenize 128 JPEGs of 256x256: {times[0][1]:.2f} s; network alone {times[0][0]:.2f} s")
    print(f"median ratio of 5 alternating pairs {ratio:.3f} (wanted: at most 1.2)")


def test_a_budget_beside_one_size(tmp_path: Path) -> None:
    """Processor time of pictures of 15 aspect ratios at their own grids, and at one: at most 1.2 times as much."""
    make_run(tmp_path / "run", encoder_width=8, decoder_width=8)
    media = photographs(tmp_path / "media", 128, 300)
    for i, file in enumerate(sorted(media.iterdir())):
        width = 300 * min(1, TEMPLATES[i % 15] ** -1)
        height = 300 * min(1, TEMPLATES[i % 15])
        Image.open(file).crop((0, 0, round(width), round(height))).save(file, quality=90)

    def seconds(name: str, **options: str) -> float:
        began = time.process_time()
        tokenize(str(media), tmp_path / name, tmp_path / "run", TokenizeSettings(workers=0, **options))
        return time.process_time() - began

    seconds("warm.zarr", budget="0.06M")
    times = [(seconds(f"{i}.zarr", size="256x256"), seconds(f"{i}b.zarr", budget="0.06M")) for i in range(4)]
    ratio = statistics.median(b / a for a, b in times)
    print(f"\n128 JPEGs of 15 ratios: {times[0][1]:.2f} s with --budget 0.06M, {times[0][0]:.2f} s with --size 256x256")
    print(f"median ratio of 4 alternating pairs {ratio:.3f} (wanted: at most 1.2)")


def test_memory_beside_the_number_of_sources(tmp_path: Path) -> None:
    """Peak resident memory of the whole process at 1,000 and at 10,000 sources of 32x32."""
    make_run(
        tmp_path / "run", encoder_width=8, decoder_width=8, multipliers=(1, 1, 1), halve_space=(1, 2), halve_time=()
    )
    media = photographs(tmp_path / "media", 10_000, 32)
    peaks = {}
    for count in (1_000, 10_000):
        arguments = [media, tmp_path / f"{count}.zarr", "--tokenizer", tmp_path / "run", "--limit", count]
        code = (
            "import sys; from grncli.cli import app; app(sys.argv[1:], standalone_mode=False);"
            # Not getrusage, whose maximum starts with that of the process that forked this one.
            "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
        )
        result = subprocess.run(
            [sys.executable, "-c", code, "tokenize", *map(str, arguments)], capture_output=True, text=True, check=True
        )
        peaks[count] = int(result.stdout.split()[-1]) / 1024
    print(f"\npeak memory: {peaks[1_000]:.0f} MiB at 1,000 sources, {peaks[10_000]:.0f} MiB at 10,000")
