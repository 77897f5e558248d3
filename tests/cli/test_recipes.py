"""``grn recipe``: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from grncli.cli import app

FOLDER = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def grn_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["recipe", *map(str, arguments)])


def test_the_list_names_each_recipe_and_its_command(grn_recipe):
    listed = grn_recipe("list")
    lines = [line.split()[:2] for line in listed.stdout.splitlines()]
    assert ["c2i-small-ind", "train-gen"] in lines
    assert ["tokenizer-small", "train-tokenizer"] in lines
    assert all(len(line) <= 80 for line in listed.stdout.splitlines())
    found = json.loads(grn_recipe("list", "--json").stdout)
    assert {each["name"] for each in found} == {path.stem for path in FOLDER.glob("*.yaml")}


def test_show_prints_the_file_or_every_field(grn_recipe):
    assert grn_recipe("show", "tokenizer-small").stdout == (FOLDER / "tokenizer-small.yaml").read_text()
    full = grn_recipe("show", "tokenizer-small", "--full").stdout
    assert "  # Clips a step, of all processes together.\n" in full
    assert yaml.safe_load(full)["training"]["keep"] == 2
    assert yaml.safe_load(grn_recipe("show", "tokenizer-small", "training.keep=7").stdout)["training"]["keep"] == 7


def test_show_prints_the_same_as_json(grn_recipe):
    fields = yaml.safe_load((FOLDER / "tokenizer-small.yaml").read_text())
    assert json.loads(grn_recipe("show", "tokenizer-small", "--json").stdout).keys() == fields.keys()
    full = json.loads(grn_recipe("show", "tokenizer-small", "training.keep=7", "--json").stdout)
    assert (full["training"]["keep"], full["rounds"]) == (7, 4)


def test_a_copy_can_be_checked(grn_recipe, tmp_path):
    copied = grn_recipe("copy", "c2i-small-ind", "mine.yaml")
    assert (copied.exit_code, copied.stdout) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml", "recipe.schema.json"}
    checked = grn_recipe("check", "mine.yaml")
    assert (checked.exit_code, checked.stderr) == (
        0,
        "mine.yaml: is a recipe for grn train-gen, without a fault\n",
    )
    assert grn_recipe("copy", "c2i-small-ind", "mine.yaml").exit_code == 2
    again = grn_recipe("copy", "c2i-small-ind", "mine.yaml", "--overwrite", "--json")
    assert json.loads(again.stdout) == {"recipe": "mine.yaml", "schema": "recipe.schema.json"}


def test_check_names_every_fault_and_exits_with_2(grn_recipe, tmp_path):
    (tmp_path / "mine.yaml").write_text("kind: tokenizer\nround: 4\nlosses: {gans: 1}")
    checked = grn_recipe("check", "mine.yaml", "training.steps=none", "--json")
    assert checked.exit_code == 2
    assert len(checked.stderr.splitlines()) == 3
    assert json.loads(checked.stdout)["faults"] == [
        "there is no field round; did you mean rounds?",
        "there is no field losses.gans; did you mean losses.gan?",
        "training.steps is 'none': expected a whole number",
    ]


def test_check_names_every_fault_also_quietly(grn_recipe, tmp_path):
    (tmp_path / "mine.yaml").write_text("kind: tokenizer\nround: 4\nlosses: {gans: 1}")
    checked = grn_recipe("check", "mine.yaml", "--quiet")
    assert [line.split(";")[0] for line in checked.stderr.splitlines()] == [
        "grn: mine.yaml: there is no field round",
        "grn: mine.yaml: there is no field losses.gans",
    ]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (b"\x89PNG\xb7", [], "cannot be read as a YAML recipe"),
        (b"kind: tokenizer\ndate: 2020-01-01", ["--json"], "mine.yaml: Object of type date is not JSON serializable"),
    ],
    ids=["binary", "date"],
)
def test_what_cannot_be_shown_has_a_sentence(grn_recipe, tmp_path, content, options, words):
    (tmp_path / "mine.yaml").write_bytes(content)
    shown = grn_recipe("show", "mine.yaml", *options)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [("rounds: 4", "has no field kind, expected kind: tokenizer or kind: generator"), ("kind: c2i", "kind is 'c2i'")],
)
def test_check_says_when_the_kind_is_not_known(grn_recipe, tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    checked = grn_recipe("check", "mine.yaml")
    assert (checked.exit_code, words in checked.stderr) == (2, True)


def test_the_schema_is_printed(grn_recipe):
    assert grn_recipe("schema").stdout == (FOLDER / "recipe.schema.json").read_text()
