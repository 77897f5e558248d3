"""Recipes: values keep their meaning, and every mistake gets one sentence that names its place."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grncli.errors import RecipeError
from grncli.models.tokenizer import TokenizerConfig
from grncli.recipe import dump_recipe, parse_recipe, read_recipe
from grncli.training.recipes import ClipData, Data, Optimization, TokenizerRecipe


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
        ({"kind": "c2i"}, "kind is 'c2i', expected tokenizer"),
        ({"data": {"image": {"size": 100}}}, "data.image.size is 100, expected a multiple of the stride 16"),
        ({"data": {"clip": {"frames": 6}}}, "data.clip.frames is 6, expected 1 + 4n"),
        ({"data": {"image": None}}, "data names neither image nor clip"),
        ({"data": {"image": {"batch": 0}}}, "data.image: batch is 0, expected more than 0"),
        ({"network": {"halve_time": [9]}}, "network: halve_time names stage 9"),
        ({"optimization": {"schedule": "linear"}}, "optimization: schedule is 'linear', expected constant or cosine"),
        ({"optimization": {"ema": 1}}, "optimization: ema is 1.0"),
        ({"training": {"keep": 0}}, "training: keep is 0, expected more than 0"),
        ({"training": {"stepz": 5}}, "no field training.stepz; did you mean training.steps?"),
    ],
    ids=str,
)
def test_an_impossible_tokenizer_recipe_is_refused_by_name(data, message):
    assert message in message_of(parse_recipe, data, TokenizerRecipe, "r.yaml")
