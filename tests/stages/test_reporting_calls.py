"""The calls that measure, search, export and caption: they make what the commands make, and write the same pages."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import grncli
from grncli.runtime.errors import UsageError


@pytest.fixture(scope="module")
def bits(tokenizer, media_dir, tmp_path_factory):
    return grncli.tokenize(media_dir, tmp_path_factory.mktemp("bits") / "bits.zarr", tokenizer=tokenizer, workers=0)


def test_statistics_are_saved_as_by_the_command(grn_inside, tokenizer, media_dir, tmp_path):
    asked = {"features": tokenizer, "workers": 0, "limit": 4}
    summary = grncli.save_statistics(media_dir / "a", tmp_path / "called.npz", keep_features=True, **asked)
    options = ("--features", tokenizer, "--workers", 0, "--limit", 4, "--keep-features", "--json")
    done = grn_inside("eval", "stats", media_dir / "a", tmp_path / "command.npz", *options)
    assert json.loads(done.stdout) == {**summary.to_json(), "out": str(tmp_path / "command.npz")}
    ours, theirs = (np.load(tmp_path / f"{name}.npz") for name in ("called", "command"))
    assert set(ours.files) == set(theirs.files) >= {"mu", "sigma", "features"}
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    with pytest.raises(UsageError, match="exists"):
        grncli.save_statistics(media_dir / "a", tmp_path / "called.npz", **asked)
    pictures = grncli.save_statistics(media_dir / "a", tmp_path / "p.npz", as_pictures=True, workers=0)
    assert pictures.document["arr_0"] == [6, 16, 16, 3]


def test_a_search_finds_what_the_command_finds(grn_inside, generator, tokenizer, media_dir, tmp_path):
    common = {"features": tokenizer, "per_class": 4, "halvings": 1, "steps": 2, "workers": 0, "device": "cpu"}
    result = grncli.search_settings(
        generator,
        {"temperature": [0.7, 1.3], "select": "mask"},
        tokenizer=tokenizer,
        reference=media_dir / "a",
        out=tmp_path / "called",
        html=tmp_path / "search.html",
        plot=tmp_path / "search.svg",
        **common,
    )
    options = [text for name, value in common.items() for text in (f"--{name.replace('_', '-')}", value)]
    options += ["--reference", media_dir / "a", "--out", tmp_path / "command", "--grid", "temperature=0.7,1.3"]
    done = grn_inside("eval", "search", generator, "--tokenizer", tokenizer, *options, "select=mask", "--json")
    found = json.loads(done.stdout)
    assert [trial["point"] for trial in found["trials"]] == [dict(trial.point) for trial in result.trials]
    assert found["trials"][0]["distance"] == result.best.distance
    assert 'grncli.search_settings("' in html.unescape((tmp_path / "search.html").read_text())
    assert (tmp_path / "search.svg").read_text().startswith("<?xml")


def test_samples_of_prompts_are_exported_as_by_the_command(grn_inside, make_text_run, tokenizer, tmp_path, read_tree):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red star\na blue square\n")
    run = make_text_run(tmp_path / "t2v", tokenizer, grids={"3x4x4": 9})
    asked = {"tokenizer": tokenizer, "prompts": prompts, "text_encoder": "minilm", "frames": 5, "steps": 2}
    grncli.sample(run, out=tmp_path / "samples", device="cpu", **asked)
    summary = grncli.export_samples(tmp_path / "samples", tmp_path / "called", "vbench", device="cpu")
    done = grn_inside("eval", "export", tmp_path / "samples", tmp_path / "command", "--for", "vbench", "--json")
    assert json.loads(done.stdout)["files"] == summary.files == 2
    assert summary.warnings == ("5 samples a prompt expected by VBench, found 1",)
    assert read_tree(tmp_path / "called") == read_tree(tmp_path / "command")


def test_captions_are_added_as_by_the_command(bits, grn_inside, tmp_path):
    (tmp_path / "captions.jsonl").write_text('{"path": "a/00.png", "caption": "a picture"}\n')
    for name in ("called", "command"):
        shutil.copytree(bits.out, tmp_path / name)
    summary = grncli.add_captions(tmp_path / "called", tmp_path / "captions.jsonl")
    done = grn_inside("captions", tmp_path / "command", tmp_path / "captions.jsonl", "--json")
    assert json.loads(done.stdout) == {"store": str(tmp_path / "command"), **vars(summary)}
    assert (summary.added, summary.sources) == (1, bits.sources)


def test_calls_that_report_write_the_page_of_the_command(bits, grn_inside, tokenizer, media_dir, tmp_path):
    pictures = media_dir / "a"
    calls = {
        "gen": (
            partial(grncli.evaluate, pictures, pictures, features=tokenizer, metrics="fd", workers=0),
            ["eval", "gen", pictures, "--reference", pictures, "--features", tokenizer, "--metrics", "fd"],
        ),
        "recon": (
            partial(grncli.evaluate_reconstruction, pictures, tokenizer=tokenizer, metrics="psnr", workers=0),
            ["eval", "recon", pictures, "--tokenizer", tokenizer, "--metrics", "psnr"],
        ),
        "bits": (partial(grncli.quantize_stats, bits.out), ["quantize-stats", bits.out]),
    }
    for name, (call, command) in calls.items():
        call(html=tmp_path / f"{name}.html")
        workers = () if name == "bits" else ("--workers", 0)
        assert grn_inside(*command, *workers, "--html", tmp_path / "command.html").returncode == 0
        ours, theirs = ((tmp_path / f"{page}.html").read_text().split("<footer>") for page in (name, "command"))
        assert ours[0] == theirs[0]
        assert f"grncli.{call.func.__name__}(" in ours[1]


def test_the_command_on_a_page_of_a_call_repeats_it(bits, tmp_path, capfd):
    grncli.quantize_stats(bits.out, html=tmp_path / "it's.html", plot=tmp_path / "bits.png")
    page = html.unescape((tmp_path / "it's.html").read_text())
    (tmp_path / "it's.html").unlink()
    _, *words = shlex.split(re.search(r"<code>(python -c .*)</code>", page)[1])
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    assert html.unescape((tmp_path / "it's.html").read_text()).split("<footer>")[0] == page.split("<footer>")[0]


def test_a_page_that_cannot_be_written_is_refused_before_the_work(tokenizer, media_dir, tmp_path):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.html"):
        grncli.evaluate(tmp_path / "absent", html=tmp_path / "page.txt")
    with pytest.raises(UsageError, match="no such folder"):
        grncli.evaluate_reconstruction(tmp_path / "absent", tokenizer=tokenizer, sheet=tmp_path / "none/sheet.png")
    with pytest.raises(UsageError, match="--sheet goes with --media"):
        grncli.quantize_stats(tmp_path / "bits.zarr", sheet=tmp_path / "sheet.png")
