"""The calls from Python make what the commands make, byte for byte, and say in a value what it is."""

import json

import numpy as np
import pytest

import grncli
from grncli import open_store
from grncli.runtime.errors import UsageError


@pytest.fixture(scope="module")
def bits(tokenizer, media_dir, tmp_path_factory):
    """What `grncli.tokenize` makes of the pictures of two classes, and its summary."""
    out = tmp_path_factory.mktemp("called") / "bits.zarr"
    heard = []
    summary = grncli.tokenize(
        media_dir,
        out,
        tokenizer=tokenizer,
        size=(16, 16),
        frames=5,
        clips="first",
        labels="dirs",
        workers=0,
        progress=lambda *told: heard.append(told),
    )
    assert heard[-1][:2] == (summary.sources, summary.sources)
    return summary


def read_store(path, read_tree):
    """Files of a store, without the times of its log."""
    return {name: data for name, data in read_tree(path).items() if not name.endswith(("timing.jsonl", ".lock"))}


def test_tokenize_makes_the_bytes_of_the_command_and_does_nothing_twice(
    bits, grn_inside, tokenizer, media_dir, tmp_path, read_tree
):
    out = tmp_path / "bits.zarr"
    options = ("--size", "16x16", "--frames", 5, "--clips", "first", "--labels", "dirs", "--workers", 0, "--json")
    done = grn_inside("tokenize", media_dir, out, "--tokenizer", tokenizer, *options)
    assert read_store(out, read_tree) == read_store(bits.out, read_tree)
    told = json.loads(done.stdout)
    assert (told["out"], told["samples"]) == (str(out), bits.samples)
    again = grncli.tokenize(
        media_dir, bits.out, tokenizer=tokenizer, size="16x16", frames=5, clips=1, labels="dirs", workers=0
    )
    assert (again.made, again.samples) == (0, bits.samples)


def test_a_callback_that_raises_ends_the_call_and_the_next_one_resumes(bits, tokenizer, media_dir, tmp_path, read_tree):
    def call(**more):
        options = {"size": 16, "frames": 5, "clips": "first", "labels": "dirs", "workers": 0}
        return grncli.tokenize(media_dir, tmp_path / "b.zarr", tokenizer=tokenizer, **options, **more)

    def give_up(*told):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(progress=give_up)
    assert call().samples == bits.samples
    ours, theirs = (open_store(path) for path in (tmp_path / "b.zarr", bits.out))
    assert [each.bits.tobytes() for each in ours[:]] == [each.bits.tobytes() for each in theirs[:]]


def test_decode_writes_the_files_of_the_command_and_measures_them(
    bits, grn_inside, tokenizer, media_dir, tmp_path, read_tree
):
    summary = grncli.decode(
        bits.out, tmp_path / "called", tokenizer=tokenizer, select=slice(0, 6), rounds=1, compare=media_dir
    )
    options = ("--select", "0:6", "--rounds", 1, "--compare", media_dir, "--json")
    done = grn_inside("decode", bits.out, tmp_path / "command", "--tokenizer", tokenizer, *options)
    pictures = [
        {name: data for name, data in read_tree(tmp_path / folder).items() if name.endswith((".png", ".mp4"))}
        for folder in ("called", "command")
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == summary.written == 6
    assert summary.out == tmp_path / "called"
    assert json.loads(done.stdout)["image_psnr"] == pytest.approx(summary.quality.means()["image_psnr"])


def test_sample_with_out_makes_the_samples_of_the_command(grn_inside, generator, tokenizer, tmp_path):
    summary = grncli.sample(
        generator,
        out=tmp_path / "called",
        tokenizer=tokenizer,
        classes=["ant", 2],
        per_class=2,
        steps=3,
        guidance_interval=(0.2, 1),
        dtype="float32",
        seed=5,
    )
    options = ("--classes", "ant,2", "--per-class", 2, "--steps", 3, "--guidance-interval", "0.2:1", "--seed", 5)
    out = tmp_path / "command.zarr"
    assert grn_inside("sample", generator, out, *options, "--dtype", "float32").returncode == 0
    ours, theirs = open_store(summary.store), open_store(out)
    assert (summary.out, summary.store) == (tmp_path / "called", tmp_path / "called" / "samples.zarr")
    assert (summary.made, summary.samples, summary.nfe) == (4, 4, summary.steps[3] * 6 - 4)
    assert ours.fingerprint.preprocessing == theirs.fingerprint.preprocessing
    for one, other in zip(ours[:], theirs[:], strict=True):
        np.testing.assert_array_equal(one.bits, other.bits)
    assert len(list((tmp_path / "called").rglob("*.png"))) == 4


def test_sample_takes_a_run_in_place_of_its_network_but_files_need_the_run(generator, tmp_path):
    network = grncli.load_generator(generator)
    asked = {"grid": (1, 4, 4), "labels": [0, 2], "steps": 3, "seed": 5}
    assert grncli.sample(generator, **asked).equal(grncli.sample(network, **asked))
    with pytest.raises(UsageError, match="run directory"):
        grncli.sample(network, out=tmp_path / "s")
    assert not any(tmp_path.iterdir())


def test_quantize_stats_and_evaluation_give_the_numbers_of_the_commands(
    bits, grn_inside, tokenizer, media_dir, tmp_path
):
    def told(*command):
        done = grn_inside(*command, "--json")
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        del document["made"]  # by which command, and when
        return document

    pictures = media_dir / "a"
    assert grncli.quantize_stats(bits.out).to_json() == told("quantize-stats", bits.out)
    measured = grncli.quantize_stats(media=pictures, tokenizer=tokenizer, rounds=2, workers=0)
    options = ("--media", pictures, "--tokenizer", tokenizer, "--rounds", "2", "--workers", 0)
    assert measured.to_json() == told("quantize-stats", *options)
    assert measured.sheet.ndim == 3
    report = grncli.evaluate_reconstruction(pictures, tokenizer=tokenizer, rounds=1, metrics=["psnr"], workers=0)
    options = ("--tokenizer", tokenizer, "--rounds", 1, "--metrics", "psnr", "--workers", 0)
    assert report.to_json() == told("eval", "recon", pictures, *options)
    figures = grncli.evaluate(pictures, media_dir / "b", features=tokenizer, metrics="fd", workers=0)
    options = ("--reference", media_dir / "b", "--features", tokenizer, "--metrics", "fd", "--workers", 0)
    assert figures.to_json() == told("eval", "gen", pictures, *options)
    assert figures.value("fd") > 0


TOKENIZER = """\
kind: tokenizer
rounds: 2
network: {channels: 4, encoder_width: 4, decoder_width: 4, multipliers: [1, 1], encoder_blocks: 1, decoder_blocks: 1,
  halve_space: [1], halve_time: []}
data: {image: {size: 16, batch: 2}}
training: {steps: 4, log_every: 2}
"""
GENERATOR = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 2}
training: {steps: 4, log_every: 2, dtype: float32}
"""


def test_trainings_report_each_line_and_leave_finished_runs_alone(bits, media_dir, tmp_path):
    recipes = {"tok": TOKENIZER, "gen": GENERATOR}
    for name, text in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    calls = {
        "tok": lambda **more: grncli.train_tokenizer(
            tmp_path / "tok.yaml", media_dir / "a", tmp_path / "tok", overrides={"training.steps": 2}, **more
        ),
        "gen": lambda **more: grncli.train_generator(
            tmp_path / "gen.yaml", bits.out, tmp_path / "gen", overrides=["training.steps=2"], **more
        ),
    }
    for name, call in calls.items():
        lines = []
        summary = call(report=lines.append)
        logged = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert (summary.out, summary.step, summary.added) == (tmp_path / name, 2, 2)
        assert [line.step for line in lines] == [line["step"] for line in logged] == [2]
        assert summary.numbers["loss"] == logged[-1]["loss"]
        again = call()
        assert (again.step, again.added, again.numbers) == (2, 0, {})
    with pytest.raises(UsageError, match="--ema sometimes"):
        calls["gen"](ema="sometimes")


def test_a_call_that_ran_out_of_time_resumes_to_the_same_run(bits, tmp_path):
    (tmp_path / "gen.yaml").write_text(GENERATOR)

    def call(run, **more):
        return grncli.train_generator(tmp_path / "gen.yaml", [bits.out], tmp_path / run, device="cpu", **more)

    with pytest.raises(grncli.Stopped, match=r"--max-time: stopped after step [1-3] of 4"):
        call("stopped", max_time=1e-9)
    assert call("stopped").step == call("whole").step == 4
    weights = [tmp_path / run / "checkpoints/step-00000004/ema.safetensors" for run in ("stopped", "whole")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_encode_text_makes_the_bytes_of_the_command(grn_inside, tmp_path, read_tree):
    (tmp_path / "prompts.txt").write_text("a red star\na blue square\n")
    summary = grncli.encode_text(
        tmp_path / "prompts.txt", tmp_path / "called.zarr", text_encoder="minilm", device="cpu"
    )
    command = ("encode-text", tmp_path / "prompts.txt", tmp_path / "command.zarr", "--text-encoder", "minilm")
    done = grn_inside(*command, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    assert read_tree(summary.out) == read_tree(tmp_path / "command.zarr")
    assert (summary.made, summary.distinct) == (3, 3)
    assert json.loads(done.stdout)["out"] == str(tmp_path / "command.zarr")
