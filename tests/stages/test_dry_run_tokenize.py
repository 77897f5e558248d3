"""What a dry run of ``grn tokenize`` tells beforehand is what the run then takes."""

import json
from pathlib import Path

import pytest

from grncli.store import open_store


@pytest.fixture(scope="module")
def asked(tmp_path_factory, media_dir, run_dir, grn_inside):
    """Costs of a command by ``--dry-run``, and its store once it ran."""

    def ask(*options, src=media_dir):
        out = tmp_path_factory.mktemp("costs") / "s.zarr"
        command = ("tokenize", src, out, "--tokenizer", run_dir, "--workers", 0, "--device", "cpu", *options)
        dry = grn_inside(*command, "--dry-run", "--json")
        assert dry.returncode == 0, dry.stderr
        assert not out.exists()
        assert grn_inside(*command).returncode == 0
        return json.loads(dry.stdout)["costs"], open_store(out)

    return ask


def chunk_bytes(store):
    return sum(file.stat().st_size for file in Path(store.path).rglob("c.*"))


@pytest.mark.parametrize("options", [(), ("--frames", 5), ("--frames", 5, "--clips", 1, "--flip")])
def test_samples_and_grids_are_those_of_the_run(asked, options):
    costs, store = asked(*options)
    assert costs["counts"]["samples"] == len(store)
    assert costs["grids"] == {"x".join(map(str, grid)): count for grid, count in store.grids.items()}
    tokens = sum(count * grid[0] * grid[1] * grid[2] for grid, count in store.grids.items())
    assert costs["counts"]["tokens"] == tokens


def test_windows_are_counted_beside_sources(asked):
    costs, store = asked("--frames", 5)
    assert costs["counts"]["sources"] == 16
    assert costs["counts"]["windows"] == 4 == len(store) - 14


def test_windows_of_a_stretch_are_not_those_of_its_whole_clip(asked, media_dir, tmp_path):
    rows = [f"{media_dir}/clips/{i}.mp4,{begin},{begin + 0.7}" for i in (0, 1) for begin in (0, 0.75)]
    (tmp_path / "m.csv").write_text("\n".join(["path,begin,end", *rows]))
    costs, store = asked("--frames", 5, "--outside", src=tmp_path / "m.csv")
    assert costs["counts"]["windows"] == len(store) == 4


def test_sources_known_to_fail_are_counted(asked, media_dir, tmp_path):
    (tmp_path / "list.txt").write_text(f"{media_dir}/a/00.png\n{tmp_path}/nothing.png\n")
    costs, _ = asked(src=tmp_path / "list.txt")
    assert (costs["counts"]["samples"], costs["counts"]["failing"]) == (1, 1)


def test_bytes_are_those_of_the_store(asked):
    costs, store = asked()
    lines = sum(file.stat().st_size for file in Path(store.path).rglob("samples.jsonl"))
    assert costs["disk"]["written"] == pytest.approx(chunk_bytes(store) + lines, rel=0.25)
    assert costs["disk"]["written"] >= chunk_bytes(store)
    assert costs["disk"]["free"] > 0


def test_time_and_memory_are_measured(asked):
    costs, _ = asked()
    assert costs["seconds"] > 0
    assert {rate["unit"] for rate in costs["rates"]} == {"samples"}
    assert costs["memory"]["process"] > 50e6  # PyTorch alone takes more


def test_only_what_is_left_counts(tmp_path, media_dir, run_dir, grn_inside):
    command = ("tokenize", media_dir / "a", tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 0)
    assert grn_inside(*command, "--limit", 4).returncode == 0
    costs = json.loads(grn_inside(*command, "--dry-run", "--json").stdout)["costs"]
    assert costs["counts"]["sources"] == costs["counts"]["samples"] == 2
    assert grn_inside(*command).returncode == 0
    done = json.loads(grn_inside(*command, "--dry-run", "--json").stdout)["costs"]
    assert (done["counts"]["samples"], done["seconds"], done["disk"]["written"]) == (0, 0, 0)


def test_sources_that_cannot_be_read_are_told(tmp_path, media_dir, run_dir, grn_inside):
    good = sorted((media_dir / "a").iterdir())[0].read_bytes()
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(good if number else b"no picture")
    out = tmp_path / "s.zarr"
    done = grn_inside("tokenize", tmp_path, out, "--tokenizer", run_dir, "--workers", 0, "--dry-run", "--json")
    counts = json.loads(done.stdout)["costs"]["counts"]
    assert (counts["sources"], counts["samples"], counts["failing"]) == (4, 3, 1)


def test_the_figures_stand_on_standard_output(tmp_path, media_dir, run_dir, grn_inside):
    done = grn_inside("tokenize", media_dir, tmp_path / "s.zarr", "--tokenizer", run_dir, "--workers", 1, "--dry-run")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[2] != " "] == [
        *("to", "time", "memory", "disk")
    ]
    assert "1 decoding process of" in done.stdout
