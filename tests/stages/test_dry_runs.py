"""Dry runs of the stages after ``grn tokenize``, and the call that tells the same from Python."""

import json

import pytest

import grncli
from grncli.runtime.errors import UsageError


@pytest.fixture(scope="module")
def places(media_dir, run_dir, make_generator_run, grn_inside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    places = {
        "media": media_dir,
        "tok": run_dir,
        "store": folder / "s.zarr",
        "out": folder / "out",
        "prompts": folder / "p",
    }
    command = ("tokenize", media_dir, places["store"], "--tokenizer", run_dir, "--workers", 0)
    assert grn_inside(*command).returncode == 0
    places["gen"] = make_generator_run(folder / "gen", run_dir, rounds=4)
    places["prompts"].write_text("a fish\na bird\na fish\n")
    return places


@pytest.fixture(scope="module")
def dry(places, grn_inside):
    def run(command):
        done = grn_inside(
            *(word.format(**places) for word in command.split()), "--dry-run", "--json", "--device", "cpu"
        )
        assert done.returncode == 0, done.stderr
        assert not places["out"].exists()
        return json.loads(done.stdout)

    return run


COMMANDS = {
    "decode {store} {out} --tokenizer {tok}": {"samples": 16},
    "decode {store} {out} --tokenizer {tok} --select 0:3": {"samples": 3},
    "sample {gen} {out} --tokenizer {tok} --per-class 4 --steps 5 --guidance 1": {
        "samples": 12,
        "steps": 60,
        "NFE": 60,
    },
    "sample {gen} {out} --tokenizer {tok} --classes ant --per-class 6 --part 1/3": {"samples": 2, "steps": 100},
    "encode-text {prompts} {out} --text-encoder minilm": {"prompts": 3},
    "quantize-stats --media {media} --tokenizer {tok} --rounds 1:2 --workers 0 --size 16": {"sources": 16},
    "eval recon {media} --tokenizer {tok} --metrics psnr --workers 0": {"pictures": 16},
    "eval gen {media}/a --reference {media}/b --features {tok} --metrics fd --workers 0 --size 16": {
        "reference": 6,
        "pictures": 6,
    },
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stage_tells_what_there_is_to_do_and_measures_it(command, dry):
    costs = dry(command)
    assert {name: costs["counts"][name] for name in COMMANDS[command]} == COMMANDS[command]
    assert costs["seconds"] > 0
    assert all(rate["done"] > 0 and rate["seconds"] > 0 for rate in costs["rates"])
    assert costs["memory"]["process"] > 50e6  # PyTorch alone takes more


def test_guided_steps_count_twice(dry):
    plain = dry("sample {gen} {out} --tokenizer {tok} --steps 4 --guidance 1")["counts"]
    guided = dry("sample {gen} {out} --tokenizer {tok} --steps 4 --guidance 2 --guidance-interval 0.4:0.6")["counts"]
    assert (plain["NFE"], guided["NFE"]) == (4 * plain["samples"], 5 * plain["samples"])  # ratios 0, 0.25, 0.5, 0.75


def test_files_that_are_there_are_not_decoded_again(places, grn_inside, tmp_path):
    command = ("decode", places["store"], tmp_path / "d", "--tokenizer", places["tok"], "--device", "cpu")
    assert grn_inside(*command).returncode == 0
    costs = json.loads(grn_inside(*command, "--dry-run", "--json").stdout)
    assert (costs["counts"]["samples"], costs["seconds"], costs["disk"]["written"]) == (0, 0, 0)


def test_bytes_of_decoded_files_are_told(places, grn_inside, tmp_path):
    command = ("decode", places["store"], tmp_path / "d", "--tokenizer", places["tok"], "--device", "cpu")
    costs = json.loads(grn_inside(*command, "--dry-run", "--json").stdout)
    assert grn_inside(*command).returncode == 0
    written = [file for file in (tmp_path / "d").rglob("*") if file.suffix in (".png", ".mp4")]
    assert costs["disk"]["written"] == pytest.approx(sum(file.stat().st_size for file in written), rel=0.1)


@pytest.mark.parametrize("options", [("--format", "jpg", "--quality", 60), ("--format", "webdataset:jpg")])
def test_bytes_are_those_of_the_format(places, grn_inside, tmp_path, options):
    command = ("decode", places["store"], tmp_path / "d", "--tokenizer", places["tok"], "--device", "cpu", *options)
    costs = json.loads(grn_inside(*command, "--dry-run", "--json").stdout)
    assert grn_inside(*command).returncode == 0
    lines = [json.loads(line) for line in (tmp_path / "d/decoded.jsonl").read_text().splitlines()]
    files = sum((tmp_path / "d" / line["file"]).stat().st_size for line in lines)
    assert costs["disk"]["written"] == pytest.approx(lines[-1].get("end", files), rel=0.1)
    assert json.loads(grn_inside(*command, "--dry-run", "--json").stdout)["counts"]["samples"] == 0


def test_only_files_of_the_samples_asked_for_are_there(places, grn_inside, tmp_path):
    command = ("decode", places["store"], tmp_path / "d", "--tokenizer", places["tok"], "--device", "cpu")
    assert grn_inside(*command, "--select", "0:4").returncode == 0
    costs = json.loads(grn_inside(*command, "--select", "2:8", "--dry-run", "--json").stdout)
    assert costs["counts"]["samples"] == 4


def test_a_folder_of_other_files_is_refused_beforehand(places, grn_inside, tmp_path):
    command = ("decode", places["store"], tmp_path / "d", "--tokenizer", places["tok"], "--device", "cpu")
    assert grn_inside(*command, "--select", "0:1").returncode == 0
    for option in (("--rounds", 1), ("--dtype", "bfloat16"), ("--format", "webp")):
        done = grn_inside(*command, *option, "--dry-run")
        assert (done.returncode, "with other settings or data" in done.stderr) == (2, True)
        replaced = json.loads(grn_inside(*command, *option, "--overwrite", "--dry-run", "--json").stdout)
        assert replaced["counts"]["samples"] == 16


def test_a_dry_run_of_prompts_still_to_come_is_refused(places, grn_inside):
    done = grn_inside(
        "sample", places["gen"], places["out"], "--tokenizer", places["tok"], "--prompts", "-", "--dry-run"
    )
    assert done.returncode == 2
    assert "how many prompts will come is not known" in done.stderr


def test_the_call_tells_what_the_command_does(places, dry):
    command = dry("decode {store} {out} --tokenizer {tok} --rounds 2")
    call = grncli.estimate_costs(
        grncli.decode, places["store"], places["out"], tokenizer=places["tok"], rounds=2, device="cpu"
    )
    assert call.to_json()["counts"] == command["counts"]
    assert call.to_json().keys() == command.keys()


def test_a_trial_of_a_measurement_writes_no_report(places, tmp_path):
    page = tmp_path / "page.html"
    options = {"features": places["tok"], "metrics": "fd", "workers": 0, "size": 16, "device": "cpu", "html": page}
    folders = places["media"] / "a", places["media"] / "b"
    assert grncli.estimate_costs(grncli.evaluate, *folders, **options).seconds > 0
    assert not page.exists()
    with pytest.raises(UsageError, match=r"page\.txt: expected a name that ends in"):
        grncli.estimate_costs(grncli.evaluate, *folders, **options | {"html": tmp_path / "page.txt"})


def test_a_call_without_costs_is_refused():
    with pytest.raises(UsageError, match="expected one of tokenize, decode, sample"):
        grncli.estimate_costs(grncli.open_store, "s.zarr")
