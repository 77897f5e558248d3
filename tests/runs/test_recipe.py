"""Recipes: values keep their meaning, and every mistake gets one sentence that names its place."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.models.tokenizer import TokenizerConfig
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.recipe import dump_recipe, parse_recipe, read_own_recipe, read_recipe
from grncli.runs.tokenizer_recipe import ClipData, Data, Optimization, TokenizerRecipe
from grncli.runtime.errors import CheckpointError, RecipeError, UsageError
from grncli.training.run_setup import read_training_recipe


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    widths: tuple[int, ...] = (1, 2)

    def __post_init__(self):
        if self.rate < 0:
            raise ValueError(f"rate is {self.rate}, expected 0 or more")


@dataclass(frozen=True, kw_only=True)
class Small:
    name: str = "plain"
    flag: bool = True
    steps: int = 10
    inner: Inner = field(default_factory=Inner)
    extra: Inner | None = None

    def __post_init__(self):
        if self.name == "bad":
            raise ValueError("name is bad")


@pytest.fixture
def read(tmp_path):
    def read_text(text, *overrides, schema=Small):
        file = tmp_path / "small.yaml"
        file.write_text(text, encoding="utf-8")
        return read_recipe(file, schema, overrides)

    return read_text


def message_of(call, *arguments):
    with pytest.raises(RecipeError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Values


def test_an_empty_file_is_the_defaults(read):
    assert read("") == Small()


def test_numbers_without_a_dot_are_numbers(read):
    assert read("inner: {rate: 1e-4}").inner.rate == 1e-4


@pytest.mark.parametrize(
    ("word", "value"), [("no", False), ("yes", True), ("off", False), ('"no"', False), ("on", True)]
)
def test_yes_and_no_are_booleans(read, word, value):
    assert read(f"flag: {word}").flag is value


def test_no_is_refused_for_a_string(read):
    assert "name is False" in message_of(read, "name: no")


def test_quoted_no_is_a_string(read):
    assert read('name: "no"').name == "no"


def test_lists_become_tuples(read):
    assert read("inner: {widths: [3, 4, 5]}").inner.widths == (3, 4, 5)


def test_an_optional_section_is_absent_unless_named(read):
    assert read("").extra is None


def test_an_optional_section_is_filled_with_its_defaults(read):
    assert read("extra: {rate: 2}").extra == Inner(rate=2.0)


# Overrides


def test_an_override_wins_over_the_file(read):
    assert read("steps: 3", "steps=4").steps == 4


def test_the_last_override_of_a_field_wins(read):
    assert read("", "steps=4", "steps=5").steps == 5


def test_an_override_keeps_its_neighbours(read):
    assert read("inner: {rate: 3}", "inner.widths=[7]").inner == Inner(rate=3.0, widths=(7,))


def test_an_override_creates_missing_sections(read):
    assert read("", "extra.rate=0.25").extra == Inner(rate=0.25)


def test_an_override_fills_a_section_that_is_null(read):
    assert read("extra: null", "extra.rate=0.25").extra == Inner(rate=0.25)


def test_an_override_can_switch_a_section_off(read):
    assert read("extra: {rate: 2}", "extra=null").extra is None


def test_a_section_switched_off_can_be_filled_again(read):
    assert read("extra: {rate: 2}", "extra=null", "extra.widths=[5]").extra == Inner(widths=(5,))


def test_an_override_can_hold_a_whole_section(read):
    assert read("", "extra={rate: 2, widths: [4]}").extra == Inner(rate=2.0, widths=(4,))


def test_an_override_value_may_hold_an_equals_sign(read):
    assert read("", "name=a=b").name == "a=b"


def test_an_override_of_an_alias_leaves_the_other_section_alone(read):
    recipe = read("inner: &same {rate: 3}\nextra: *same", "extra.rate=4")
    assert (recipe.inner.rate, recipe.extra.rate) == (3.0, 4.0)


@pytest.mark.parametrize("override", ["steps", "=3", "inner..rate=3", ".rate=3", "inner.=3", ""])
def test_an_override_without_field_and_value_is_refused(read, override):
    assert f"{override!r} is not of the form field=value" in message_of(read, "", override)


def test_assigning_into_a_scalar_is_refused(read):
    assert "'steps.more=1' names steps, which is 3 and holds no fields" in message_of(read, "steps: 3", "steps.more=1")


def test_an_override_that_is_no_yaml_is_refused(read):
    assert "'steps=[1' has no readable value" in message_of(read, "", "steps=[1")


def test_an_unknown_field_in_an_override_names_the_nearest(read):
    assert "no field inner.rates; did you mean inner.rate?" in message_of(read, "", "inner.rates=3")


# Mistakes


def test_an_unknown_field_names_the_nearest(read):
    assert "no field stepz; did you mean steps?" in message_of(read, "stepz: 3")


def test_an_unknown_nested_field_names_the_nearest_with_its_section(read):
    assert "no field extra.wdiths; did you mean extra.widths?" in message_of(read, "extra: {wdiths: [3]}")


def test_an_unknown_field_like_no_other_lists_them_all(read):
    assert "no field zzz; expected one of name, flag, steps, inner, extra" in message_of(read, "zzz: 3")


def test_a_wrong_type_names_field_and_value(read):
    assert "small.yaml: inner.rate is 'fast': " in message_of(read, "inner: {rate: fast}")


def test_a_wrong_item_names_its_place(read):
    assert "small.yaml: inner.widths.1 is 'x': " in message_of(read, "inner: {widths: [1, x]}")


def test_a_check_of_a_section_names_the_section(read):
    assert message_of(read, "inner: {rate: -1}").endswith("small.yaml: inner: rate is -1.0, expected 0 or more")


def test_a_check_of_the_whole_recipe_names_the_file_alone(read):
    assert message_of(read, "name: bad").endswith("small.yaml: name is bad")


def test_a_scalar_for_a_section_is_refused(read):
    assert "small.yaml: inner is 5: " in message_of(read, "inner: 5")


@pytest.mark.parametrize("text", ["a: b: c", "d: 2024-13-45", "{[}", "\0", "{" * 3000], ids=range(5))
def test_what_is_no_yaml_is_refused(read, text):
    assert "small.yaml: cannot be read as a YAML recipe" in message_of(read, text)


@pytest.mark.parametrize(("text", "kind"), [("- a", "list"), ("[]", "list"), ("word", "str"), ("0", "int")])
def test_what_has_no_fields_is_refused(read, text, kind):
    assert f"small.yaml: holds a {kind}, expected fields and values" in message_of(read, text)


def test_a_missing_file_is_named(tmp_path):
    assert str(tmp_path / "none.yaml") in message_of(read_recipe, tmp_path / "none.yaml", Small)


def test_a_directory_is_refused(tmp_path):
    assert f"{tmp_path}: cannot be read" in message_of(read_recipe, tmp_path, Small)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "small.yaml").write_bytes(b"name: \xff\xfe")
    assert "cannot be read as a YAML recipe" in message_of(read_recipe, tmp_path / "small.yaml", Small)


def test_yaml_cannot_build_python_objects(read):
    assert "cannot be read" in message_of(read, "name: !!python/object/apply:os.getcwd []")


# Round trips

recipes = st.builds(
    Small,
    name=st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "bad"),
    flag=st.booleans(),
    steps=st.integers(-(2**40), 2**40),
    inner=st.builds(Inner, rate=st.floats(0, allow_infinity=False), widths=st.lists(st.integers()).map(tuple)),
    extra=st.none() | st.builds(Inner, rate=st.floats(0, 1)),
)


@given(recipes)
def test_a_written_recipe_reads_back_equal(tmp_path_factory, recipe):
    file = tmp_path_factory.mktemp("recipe") / "small.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert read_recipe(file, Small) == recipe


def test_the_tokenizer_recipe_reads_back_equal(read):
    recipe = TokenizerRecipe(
        network=TokenizerConfig(channels=8, halve_time=()),
        rounds=None,
        data=Data(clip=ClipData(frames=9, fps=8.0)),
        optimization=Optimization(learning_rate=1e-5),
        imported={"file": "no", "weights": "ema"},
    )
    assert read(dump_recipe(recipe), schema=TokenizerRecipe) == recipe


def test_a_dump_resolves_every_default():
    assert dump_recipe(Small()) == (
        "name: plain\nflag: true\nsteps: 10\ninner:\n  rate: 0.5\n  widths:\n  - 1\n  - 2\nextra: null\n"
    )


def test_a_dump_can_leave_sections_out():
    assert dump_recipe(Small(), ("steps", "name")) == "name: plain\nsteps: 10\n"


# The tokenizer's recipe


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rounds": 9}, "rounds is 9, expected 1 to 8"),
        ({"kind": "c2i"}, "kind is 'c2i': expected tokenizer"),
        ({"data": {"image": {"size": 100}}}, "data.image.size is 100, expected a multiple of the stride 16"),
        ({"data": {"clip": {"frames": 6}}}, "data.clip.frames is 6, expected 1 + 4n"),
        ({"data": {"image": None}}, "data names neither image nor clip"),
        ({"data": {"image": {"batch": 0}}}, "data.image: batch is 0, expected more than 0"),
        ({"network": {"halve_time": [9]}}, "network: halve_time names stage 9"),
        ({"optimization": {"schedule": "linear"}}, "optimization.schedule is 'linear': expected constant or cosine"),
        ({"optimization": {"ema": 1}}, "optimization: ema is 1.0"),
        ({"training": {"keep": 0}}, "training: keep is 0, expected more than 0"),
        ({"training": {"stepz": 5}}, "no field training.stepz; did you mean training.steps?"),
    ],
    ids=str,
)
def test_an_impossible_tokenizer_recipe_is_refused_by_name(data, message):
    assert message in message_of(parse_recipe, data, TokenizerRecipe, "r.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"data": {"workers": -1}}, "data: workers is -1, expected 0 or more"),
        ({"data": {"clip": {"fps": 0}}}, "data.clip: fps is 0.0, expected more than 0"),
        ({"optimization": {"learning_rate": "inf"}}, "learning_rate is inf, expected a finite number"),
        ({"optimization": {"betas": [2, 0.9]}}, "betas is [2.0, 0.9], expected two numbers from 0 up to but without 1"),
        ({"optimization": {"weight_decay": "nan"}}, "weight_decay is nan, expected 0 or more"),
        ({"training": {"seed": -1}}, "training: seed is -1, expected 0 to 2**63 - 1"),
        ({"rounds": "many"}, "rounds is 'many': expected a whole number, a list of whole numbers or null"),
        ({"data": {"image": {"scale": [1]}}}, "data.image.scale is [1]: expected a list of 2 numbers"),
        ({"losses": {"lpips_network": "x"}}, "losses.lpips_network is 'x': expected vgg or alex"),
        ({"losses": {"gan": {"weight": "x"}}}, "losses.gan.weight is 'x': expected a number"),
        ({"imported": {"file": 3}}, "imported.file is 3: expected text"),
    ],
    ids=str,
)
def test_a_value_without_meaning_says_what_is_expected(data, message):
    assert message in message_of(parse_recipe, data, TokenizerRecipe, "r.yaml")


# Names that are not quite those of fields


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("learning_rate=1", "discriminator.learning_rate or optimization.learning_rate"),
        ("optimisation.lr=1", "optimization.learning_rate"),
        ("optimisation.learning_rate=1", "optimization.learning_rate"),
        ("optimization.lr=1", "optimization.learning_rate"),
        ("data.size=1", "data.image.size or data.clip.size"),
        ("image.size=1", "data.image.size"),
        ("stepz=1", "training.steps"),
    ],
)
def test_a_mistyped_field_is_suggested_with_its_whole_path(read, override, near):
    message = message_of(lambda: read("", override, schema=TokenizerRecipe))
    assert message.endswith(f"there is no field {override.partition('=')[0]}; did you mean {near}?")
    field, _, value = override.partition("=")
    text = "".join(f"{'  ' * i}{name}:\n" for i, name in enumerate(field.split(".")))
    assert message_of(lambda: read(f"{text.rstrip()} {value}", schema=TokenizerRecipe)).endswith(
        f"did you mean {near}?"
    )


def test_a_wrong_override_is_named_rather_than_the_file(read):
    assert message_of(read, "steps: 3", "steps=4", "steps=x").startswith("the override 'steps=x': steps is 'x'")


# Values that are not shown


@pytest.mark.parametrize("override", ["steps=" + "x" * 5000, "x" * 5000 + "=1", "x" * 5000, "steps.a=" + "x" * 5000])
def test_nothing_is_shown_at_length(read, override):
    assert len(message_of(read, "steps: 3", override)) < 600


@pytest.mark.parametrize("text", ['"\\e[2J": 1', 'steps: "\\e[2J"', 'inner: {"\\e[2J": 1}', 'extra: {rate: "\\x9b2J"}'])
def test_no_recipe_drives_the_terminal(read, text):
    assert message_of(read, text).isprintable()


def test_a_section_that_holds_itself_is_refused(read):
    assert "there is no field inner.inner" in message_of(read, "", "inner=&a {inner: *a}")


@pytest.mark.parametrize("char", ["\x85", "\u2028", "\u2029", "\x1b"])
def test_a_name_with_the_end_of_a_line_in_it_is_written_and_read(read, char):
    assert read(dump_recipe(Small(name=f"a{char}b"))).name == f"a{char}b"


# Who is at fault


def test_a_mistake_of_the_user_is_wrong_usage(read):
    with pytest.raises(UsageError):
        read("steps: x")


def test_a_damaged_recipe_of_a_run_is_not(tmp_path):
    (tmp_path / "recipe.yaml").write_text("steps: x")
    with pytest.raises(CheckpointError, match=r"recipe\.yaml: steps is 'x'") as caught:
        read_own_recipe(tmp_path / "recipe.yaml", Small)
    assert not isinstance(caught.value, UsageError)


@pytest.mark.parametrize(
    ("text", "schema", "words"),
    [
        (
            "kind: tokenizer",
            AskedGeneratorRecipe,
            "is a recipe for train-tokenizer (kind: tokenizer), expected one for train-gen",
        ),
        (
            "kind: generator",
            TokenizerRecipe,
            "is a recipe for train-gen (kind: generator), expected one for train-tokeniz",
        ),
        (
            "losses: {mse: 1}",
            AskedGeneratorRecipe,
            "is a recipe for train-tokenizer (it has losses, losses.mse), expected",
        ),
        ("data: {batch: 4}", TokenizerRecipe, "is a recipe for train-gen (it has data.batch), expected"),
        ("data: {batch: 4, image: {}}", TokenizerRecipe, "there is no field data.batch"),
        ("kind: [1]", TokenizerRecipe, "kind is [1]"),
    ],
)
def test_a_recipe_for_another_command_says_so(tmp_path, text, schema, words):
    (tmp_path / "r.yaml").write_text(text)
    assert words in message_of(read_training_recipe, tmp_path / "r.yaml", schema, ["training.steps=1"])
