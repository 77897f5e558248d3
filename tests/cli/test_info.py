"""``grn info`` says what any path is, in one sentence, and shows no name that would drive a terminal."""

import numpy as np
import pytest
from typer.testing import CliRunner

from grncli.cli import app
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
        ("none", "does not exist"),
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
