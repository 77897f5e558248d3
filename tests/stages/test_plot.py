"""``grn plot`` as a real process: on a screen of any width, without braille or colours, as files and as JSON."""

import json
import os
import re

import pytest

from grncli.cli.terminal_curves import Screen, curve_lines
from grncli.evaluation.curves import read_curves

WIDTHS = (40, 60, 80, 132)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for name, rate in (("one", 1.0), ("two", 2.0)):
        (folder / name).mkdir()
        lines = [
            {"step": step, "loss": 1 / (rate * step), "image_psnr": 20 + rate * step / 100, "seconds": 1.5}
            for step in range(50, 501, 50)
        ]
        lines[-1] |= {"validation_image_psnr": 21.0}
        (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def environment(**more):
    return {**{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}, **more}


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_screen(grn_inside, runs, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    done = grn_inside("plot", runs / "one", runs / "two")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= width
    for words in ("Loss (weighted sum", "PSNR of pictures (dB)", "Speed (steps/s)", "a one", "b two", "held out"):
        assert words in done.stdout


def test_a_line_falls_where_its_numbers_do(grn_inside, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    rows = grn_inside("plot", runs / "one", "--metrics", "loss").stdout.splitlines()
    drawn = [row[row.index("│") + 1 :] for row in rows if "│" in row]
    assert len(drawn) >= 5
    assert drawn[0].strip()
    assert [len(row) - len(row.lstrip()) for row in drawn] == sorted(len(row) - len(row.lstrip()) for row in drawn)
    assert rows[0].endswith(" 0.002")  # where it ends


def test_colours_take_no_room_and_tell_runs_apart(runs):
    curves = read_curves([runs / "one", runs / "two"])
    plain, painted = (list(curve_lines(curves, Screen(80, 24, colours=colours))) for colours in (False, True))
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in painted] == plain
    first, second = (painted[place].split("m")[0] for place in (-3, -2))
    assert first != second
    assert first in painted[1] + painted[2]


def test_a_pipe_gets_no_colours_and_an_old_encoding_letters(grn, runs):
    ascii_only = environment(PYTHONIOENCODING="ascii", LC_ALL="C", COLUMNS="80")
    done = grn("plot", runs / "one", runs / "two", env=ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout
    assert re.search(r"\|.*a.*b", done.stdout)


def test_a_file_and_json_hold_the_same_curves(grn_inside, runs, tmp_path):
    file = tmp_path / "curves.svg"
    done = grn_inside("plot", runs / "one", runs / "two", "--metrics", "psnr", "--json", "--out", file)
    assert done.returncode == 0, done.stderr
    (panel,) = json.loads(done.stdout)["panels"]
    assert [(line["run"], line["held_out"], line["y"][-1]) for line in panel["lines"]] == [
        ("one", False, 25.0),
        ("one", True, 21.0),
        ("two", False, 30.0),
        ("two", True, 21.0),
    ]
    assert "PSNR of pictures (dB)" in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["one", "--out", "curves.jpg"], 2, "ends in .png or .svg or .pdf"),
        (["one", "--metrics", "fid"], 2, "logged no such number"),
        (["."], 1, "holds no metrics.jsonl"),
        (["three"], 1, "three does not exist, expected the directory of a run"),
    ],
)
def test_misuse_is_one_sentence(grn_inside, runs, monkeypatch, arguments, code, words):
    monkeypatch.chdir(runs)
    done = grn_inside("plot", *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert words in done.stderr


def test_the_terminal_needs_neither_torch_nor_matplotlib(grn, runs, tmp_path):
    for name in ("torch", "matplotlib"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise ImportError('{name} was imported')\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = grn("plot", runs / "one", env=environment(PYTHONPATH=path))
    assert done.returncode == 0, done.stderr
