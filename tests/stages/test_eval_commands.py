"""``grn eval`` as real processes: help, several processes, Ctrl-C, and export."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grncli.media.writing import write_png


class Colours(nn.Module):
    """Mean of each colour, called as StyleGAN's Inception is; the classifier says which colour there is most of."""

    classes: list[str]

    def __init__(self):
        super().__init__()
        self.classes = ["a", "b", "c"]

    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        means = x.float().flatten(2).mean(2) / 255
        return means if return_features else (20 * means).softmax(1)


class Slow(nn.Module):
    """The same after some time."""

    def forward(self, x: Tensor) -> Tensor:
        waste = torch.ones([256, 256])
        for _ in range(100):
            waste = (waste @ waste).clamp(0, 1)
        return x.float().flatten(2).mean(2) + 0 * waste[0, 0]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for module in (Colours(), Slow()):
            torch.jit.script(module).save(folder / f"{type(module).__name__.lower()}.pt")
    return folder


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two folders of noise in three classes: 21 and 17 pictures."""
    folder = tmp_path_factory.mktemp("samples")
    for name, count in (("fake", 21), ("real", 17)):
        for i in range(count):
            pixels = np.random.default_rng((i, count)).integers(0, 150, (16, 16, 3))
            pixels[..., i % 3] += i + count
            (folder / name / "abc"[i % 3]).mkdir(parents=True, exist_ok=True)
            write_png(folder / name / "abc"[i % 3] / f"{i:02d}.png", pixels.astype(np.uint8))
    return folder


def by_two(*arguments):
    """JSON of a command that two processes work at."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "grncli"]
    command = [str(part) for part in (*command, *arguments, "--json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return document(done.stdout)


def by_one(grn_inside, *arguments):
    done = grn_inside(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return document(done.stdout)


def document(text):
    """All of the text as one JSON document in the strict sense, which has no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def same(two, one, place="$"):
    """Whether two documents are, with numbers as close as sums in another order."""
    assert type(two) is type(one), place
    if isinstance(one, dict):
        assert two.keys() == one.keys(), place
        for name in one.keys() - {"made"}:
            same(two[name], one[name], f"{place}.{name}")
    elif isinstance(one, list):
        assert len(two) == len(one), place
        for i, (a, b) in enumerate(zip(two, one, strict=True)):
            same(a, b, f"{place}[{i}]")
    else:
        expected = pytest.approx(one, rel=1e-9) if isinstance(one, float) else one
        assert two == expected, place


def same_pictures(*pages):
    """Whether two pages show the same pictures under the same names."""
    one, two = (re.findall(r"<figure.*?</figure>", page.read_text()) for page in pages)
    assert one == two
    assert len(one) >= 6


@pytest.mark.parametrize("mode", [(), ("recon",), ("gen",), ("stats",), ("search",), ("export",)])
def test_help_does_not_import_what_takes_long(mode):
    code = (
        "import sys; from grncli.cli import app; app(standalone_mode=False);"
        " print([m for m in ('torch', 'numpy', 'zarr', 'matplotlib') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "eval", *mode, "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.startswith("Usage:"), result.stderr
    assert result.stdout.strip().endswith("[]"), result.stdout


def test_two_processes_measure_samples_as_one_does(grn_inside, samples, networks, tmp_path):
    # One picture at a time: a batch of another size may sum in another order.
    options = ("--features", networks / "colours.pt", "--workers", 0, "--batch", 1)
    command = ("eval", "gen", samples / "fake", "--reference", samples / "real", *options)
    one = by_one(grn_inside, *command)
    assert [f["metric"] for f in one["figures"]] == ["fd", "is", "kid", "precision", "recall", "class-accuracy"]
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    same(by_two(*command, "--html", pages[1]), one)
    by_one(grn_inside, *command, "--html", pages[0])
    assert "Furthest from real pictures" in pages[0].read_text()
    same_pictures(*pages)


def test_two_processes_measure_reconstructions_as_one_does(grn_inside, media_dir, run_dir, networks, tmp_path):
    """Figures, and the worst ten of sixteen pictures and clips."""
    options = ("--features", networks / "colours.pt", "--workers", 0, "--batch", 1, "--size", "native")
    options = (*options, "--tokenizer", run_dir, "--rounds", "1:2", "--cache", tmp_path)
    command = ("eval", "recon", media_dir, *options)
    pages = [tmp_path / "one.html", tmp_path / "two.html"]
    one = by_one(grn_inside, *command, "--html", pages[0])
    assert len(one["rows"][1]["metrics"]["psnr"]["worst"]) == 10
    same(by_two(*command, "--html", pages[1]), one)
    same_pictures(*pages)


def test_interrupted_statistics_leave_no_file(start_grn, samples, networks, tmp_path):
    pictures, out = tmp_path / "in", tmp_path / "s.npz"
    pictures.mkdir()
    (pictures / "00.png").write_bytes(b"bad")  # is told once reading has begun
    for i in range(1, 60):
        (pictures / f"{i:02d}.png").symlink_to(samples / "fake" / "a" / "00.png")
    options = ("--features", networks / "slow.pt", "--workers", 0, "--batch", 1)
    process = start_grn("eval", "stats", pictures, out, *options)
    assert "; skipped" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Ctrl-C" in said
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_export_lays_samples_out_for_geneval(grn_inside, make_run, make_generator_run, tmp_path):
    tokenizer = make_run(tmp_path / "tok", rounds=2)
    generator = make_generator_run(tmp_path / "gen", tokenizer)
    line = {"tag": "single_object", "include": [], "prompt": "a photo of a bee"}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(line) + "\n")
    made = ("--prompts", tmp_path / "prompts.jsonl", "--tokenizer", tokenizer, "--steps", 2, "--per-class", 4)
    assert grn_inside("sample", generator, tmp_path / "p", *made).returncode == 0
    options = ("--for", "geneval", "--prompts", tmp_path / "prompts.jsonl", "--json")
    done = grn_inside("eval", "export", tmp_path / "p", tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert document(done.stdout) == {"out": str(tmp_path / "out"), "prompts": 1, "files": 4, "present": 0}
    assert json.loads((tmp_path / "out" / "00000" / "metadata.jsonl").read_text()) == line
    assert [f"{n:04d}.png" for n in range(4)] == sorted(os.listdir(tmp_path / "out" / "00000" / "samples"))
