"""Shipped recipes: commands take them by name, editors find their schema, copies and explanations say the same."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from grncli.prompt_encoding.prompt_plan import read_texts
from grncli.runs.explained_recipe import explained_recipe
from grncli.runs.generator_recipe import Preview, Task, TextConditioning
from grncli.runs.recipe import load_fields, read_recipe, recipe_faults
from grncli.runs.recipe_schema import RECIPES, schema_text
from grncli.runs.shipped_recipes import EDITOR_LINE, copy_recipe, find_recipe, shipped_names, shipped_recipes
from grncli.runtime.errors import RecipeError, UsageError
from grncli.training.run_setup import read_training_recipe

FOLDER = Path(__file__).parents[2] / "recipes"
FILES = sorted(FOLDER.rglob("*.yaml"))
EACH = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def schema_of(file):
    return RECIPES[load_fields(file)["kind"]]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@EACH
def test_an_editor_finds_the_schema(file):
    line = file.read_text(encoding="utf-8").splitlines()[0]
    assert line.startswith(EDITOR_LINE)
    assert (file.parent / line.removeprefix(EDITOR_LINE)).resolve() == FOLDER / "recipe.schema.json"


def test_the_schema_file_is_up_to_date():
    hint = "grn recipe schema > recipes/recipe.schema.json"
    assert (FOLDER / "recipe.schema.json").read_text(encoding="utf-8") == schema_text(), hint


@EACH
def test_an_explained_recipe_says_the_same(file, tmp_path):
    recipe = read_recipe(file, schema_of(file))
    (tmp_path / "full.yaml").write_text(explained_recipe(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "full.yaml", schema_of(file)) == recipe


def test_an_explained_recipe_keeps_awkward_texts(tmp_path):
    prompts = ("a: b", "# c", "", "two\nlines", "\u2028", "[", "yes", "1e3")
    preview = Preview(prompts=prompts)
    text = TextConditioning(clip=Task(suffix="x\ny # z", prefix=" 5"), encoder={"name": "a, b"})
    recipe = replace(read_recipe(FOLDER / "t2v-small.yaml", RECIPES["generator"]), preview=preview, text=text)
    (tmp_path / "full.yaml").write_text(explained_recipe(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "full.yaml", RECIPES["generator"]) == recipe


def test_every_shipped_recipe_says_what_it_trains():
    recipes = shipped_recipes()
    assert [each.name for each in recipes] == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    assert all(each.description and EDITOR_LINE not in each.description for each in recipes)


@pytest.mark.parametrize("name", shipped_names())
def test_training_takes_a_shipped_name(elsewhere, name):
    schema = schema_of(find_recipe(name))
    assert read_training_recipe(Path(name), schema, []) == read_recipe(FOLDER / f"{name}.yaml", schema)


def test_a_file_wins_over_a_shipped_recipe_and_a_folder_does_not(elsewhere):
    (elsewhere / "tokenizer-small").mkdir()
    assert find_recipe("tokenizer-small") == FOLDER / "tokenizer-small.yaml"
    (elsewhere / "c2i-small-ind").write_text("kind: generator")
    assert find_recipe("c2i-small-ind") == Path("c2i-small-ind")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("c2i-smal-ind", "'c2i-smal-ind' is neither a file nor a shipped recipe; did you mean c2i-small-ind"),
        ("zzz", "grn recipe list names the shipped ones"),
        ("recipes/c2i-small-ind.yaml", "there is no such file; the shipped recipe of this name is c2i-small-ind"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(elsewhere, place, words):
    with pytest.raises(RecipeError, match=words.replace("?", r"\?")):
        find_recipe(Path(place))


@pytest.mark.parametrize("place", ["no/such/place.yaml", "runs/tok", "mine.yaml"])
def test_other_paths_stay_as_they_are(elsewhere, place):
    assert find_recipe(place) == Path(place)


def test_a_copy_names_the_schema_beside_it(elsewhere):
    source = FOLDER / "c2i-small-ind.yaml"
    copied = copy_recipe(source, elsewhere, overwrite=False)
    assert copied.read_text() == source.read_text()
    assert (elsewhere / "recipe.schema.json").read_text() == (FOLDER / "recipe.schema.json").read_text()
    (elsewhere / "bare.yaml").write_text("kind: generator\n")
    (elsewhere / "recipe.schema.json").unlink()
    copy_recipe(elsewhere / "bare.yaml", elsewhere / "b.yaml", overwrite=False)
    assert (elsewhere / "b.yaml").read_text() == f"{EDITOR_LINE}recipe.schema.json\nkind: generator\n"


def test_a_copy_replaces_nothing_unasked(elsewhere):
    source, target = FOLDER / "c2i-small-ind.yaml", elsewhere / "mine.yaml"
    target.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        copy_recipe(source, target, overwrite=False)
    copy_recipe(source, target, overwrite=True)
    copy_recipe(source, target, overwrite=True)  # over its own schema
    (elsewhere / "recipe.schema.json").write_text("mine too")
    with pytest.raises(UsageError, match="is no schema of recipes"):
        copy_recipe(source, target, overwrite=True)
    with pytest.raises(UsageError, match="no such folder"):
        copy_recipe(source, elsewhere / "none" / "x.yaml", overwrite=False)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\x89PNG\xb7", "cannot be read as a YAML recipe"), (b"- a\n- b\n", "holds a list"), (None, "is no plain file")],
    ids=["binary", "list", "pipe"],
)
def test_what_is_no_recipe_is_not_copied(elsewhere, content, words):
    source = elsewhere / "source.yaml"
    if content is None:
        os.mkfifo(source)
    else:
        source.write_bytes(content)
    with pytest.raises(RecipeError, match=f"source.yaml: .*{words}"):
        copy_recipe(source, elsewhere / "mine.yaml", overwrite=False)
    assert [path.name for path in elsewhere.iterdir()] == ["source.yaml"]


def test_a_copy_of_a_file_with_a_byte_order_mark_is_the_same_recipe(elsewhere):
    source = FOLDER / "c2i-small-ind.yaml"
    (elsewhere / "marked.yaml").write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    copied = copy_recipe(elsewhere / "marked.yaml", elsewhere / "mine.yaml", overwrite=False)
    assert copied.read_bytes() == source.read_bytes()


def test_a_copy_does_not_take_the_name_of_its_schema(elsewhere):
    with pytest.raises(UsageError, match="is the name of the schema"):
        copy_recipe(FOLDER / "c2i-small-ind.yaml", elsewhere / "recipe.schema.json", overwrite=True)
    assert not list(elsewhere.iterdir())


def test_a_name_that_is_no_text_is_one_fault():
    (fault,) = recipe_faults({"kind": "tokenizer", "network": {}, "training": {1: 2}}, RECIPES["tokenizer"])
    assert fault.startswith("there is no field training.1; ")


def test_every_fault_is_named_once():
    fields = {"rounds": "x", "training": {"stepz": 1, "keep": 0}, "data": {"image": {"batch": []}}, "extra": 1}
    faults = recipe_faults(fields, RECIPES["tokenizer"])
    assert [fault.split(",")[0] for fault in faults] == [
        "there is no field extra; expected one of kind",
        "there is no field training.stepz; did you mean training.steps?",
        "rounds is 'x': expected a whole number",
        "data.image.batch is []: expected a whole number",
        "training: keep is 0",
    ]
    assert recipe_faults(load_fields(FOLDER / "t2v-small.yaml"), RECIPES["generator"]) == []


def test_the_templates_of_a_shipped_recipe_are_applied_by_its_name(elsewhere):
    assert read_texts(Path("i2v-8b"), None).tasks["first-frame"].prefix == "<I2V>"
    (elsewhere / "i2v-8b").mkdir()  # a run of that name
    (elsewhere / "i2v-8b" / "recipe.yaml").write_text("text: {clip: {prefix: mine}}")
    assert read_texts(Path("i2v-8b"), None).tasks["clip"].prefix == "mine"
