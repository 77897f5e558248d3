"""``grn info`` says what any path is, in one sentence, and shows no name that would drive a terminal."""

import json
from collections import Counter

import numpy as np
import pytest
from typer.testing import CliRunner

from grncli.cli import app, console
from grncli.runs import loading, recipe, stored_tensors
from grncli.store import Fingerprint, open_part


def info(*arguments):
    return CliRunner().invoke(app, ["info", *map(str, arguments)])


@pytest.fixture
def store(tmp_path):
    fingerprint = Fingerprint(2, 3, (1, 4, 4), {"name": "toy\x1b[2J", "sha256": "0"}, {}, labels=("a\x9b2J",))
    with open_part(tmp_path / "s.zarr", fingerprint) as writer:
        writer.append(
            (1, 2, 2),
            np.zeros((5, 1, 2, 2, 2, 1), np.uint8),
            np.zeros(5, np.int32),
            [{"key": str(i), "source": "s"} for i in range(5)],
        )
        writer.commit(1, "")
    return tmp_path / "s.zarr"


def test_a_store_is_shown_without_what_drives_a_terminal(store):
    done = info(store)
    assert done.exit_code == 0, done.stderr
    assert "toy\\x1b[2J" in done.stdout
    assert "a\\x9b2J (5)" in done.stdout
    assert done.stdout.replace("\n", "").isprintable()


def test_checking_a_store_shows_how_far_it_is(store, monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY", 0)
    assert "info: 0/0 MiB" in info(store, "--verify").stderr
    assert "MiB" not in info(store).stderr


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_screen(store, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    assert max(map(len, info(store).stdout.splitlines())) <= width


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file.txt", "is a file, neither a bit store"),
        ("empty", "is an empty folder, neither a bit store"),
        (".", "is a folder, neither a bit store"),
        ("none", "does not exist, expected a bit store, a features store or a run directory"),
        ("foreign", "is a Zarr group but not a bit store"),
        ("s.zarr/zarr.json", "s.zarr, give that"),
        ("anybody", "is no recipe of a run"),
        ("anybody/more", "lies in the run directory"),
    ],
)
def test_anything_else_is_said_to_be_what_it_is(store, tmp_path, path, words):
    (tmp_path / "file.txt").write_text("text")
    for name in ("empty", "foreign", "anybody/more"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "foreign/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    (tmp_path / "anybody/recipe.yaml").write_text("eggs: 3")
    done = info(tmp_path / path)
    assert done.exit_code == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


# What is opened, and how often


@pytest.fixture
def count_calls(monkeypatch):
    """Counts the calls of functions of ours by name."""
    counts = Counter()

    def watch(owner, name):
        original = getattr(owner, name)

        def counted(*arguments, **options):
            counts[name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)

    watch(loading, "find_checkpoint")
    watch(recipe, "load_yaml")
    watch(recipe, "parse_recipe")
    watch(stored_tensors, "open_tensors")
    watch(loading, "read_state")
    return counts


def test_a_run_is_described_from_one_reading_of_its_recipe(make_run, tmp_path, count_calls):
    run = make_run(tmp_path / "run")
    done = info(run, "--json")
    assert json.loads(done.stdout)["kind"] == "tokenizer"
    assert count_calls == {"find_checkpoint": 1, "load_yaml": 1, "parse_recipe": 1, "read_state": 1, "open_tensors": 1}


def test_a_run_is_checked_and_described_from_one_opening(make_run, tmp_path, count_calls):
    run = make_run(tmp_path / "run")
    done = info(run, "--verify", "--json")
    assert json.loads(done.stdout)["problems"] == []
    once = {"find_checkpoint": 1, "load_yaml": 1, "parse_recipe": 1, "read_state": 1, "open_tensors": 1}
    assert count_calls == once
    assert {**json.loads(info(run, "--json").stdout), "problems": []} == json.loads(done.stdout)


def test_a_damaged_run_is_described_as_far_as_it_goes(make_run, tmp_path):
    run = make_run(tmp_path / "run")
    weights = run / "checkpoints" / "step-00000000" / "ema.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\xff\xff\xff\x7f"  # a NaN
    weights.write_bytes(content)
    done = info(run, "--verify", "--json")
    assert done.exit_code == 1
    facts = json.loads(done.stdout)
    assert facts["kind"] == "tokenizer"
    assert "no finite numbers" in facts["problems"][0]
    weights.write_bytes(b"")
    facts = json.loads(info(run, "--verify", "--json").stdout)
    assert facts.keys() == {"problems"}
    assert "cannot be read as safetensors" in facts["problems"][0]
