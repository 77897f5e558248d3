"""The schema that editors read recipes by: it says what every field means, takes our recipes and refuses mistakes."""

import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import jsonschema
import pytest
import yaml

from grncli.runs.recipe_fields import members_of
from grncli.runs.recipe_meanings import meanings
from grncli.runs.recipe_schema import RECIPES, recipe_schema

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))


class Numbers(yaml.SafeLoader):
    """Reads 1e-4 as a number, as YAML 1.2 and editors do."""


Numbers.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^-?\d+(\.\d+)?e-?\d+$"), list("-0123456789"))


@pytest.fixture(scope="module")
def validator():
    schema = recipe_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def problems(validator, text):
    return [error.message for error in validator.iter_errors(yaml.load(text, Numbers))]


def sections_of(schema):
    yield schema
    for hint in get_type_hints(schema).values():
        for member in members_of(hint):
            if is_dataclass(member):
                yield from sections_of(member)


@pytest.mark.parametrize("kind", RECIPES)
def test_every_field_says_what_it_means(kind):
    for section in sections_of(RECIPES[kind]):
        assert [each.name for each in fields(section) if each.name not in meanings(section)] == [], section


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_recipe_follows_the_schema(validator, file):
    assert problems(validator, file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {steps: 5}", "'kind' is a required property"),
        ("kind: generator\nrounds: 4", "'rounds' was unexpected"),
        ("kind: tokenizer\nnetwork: {depth: 6}", "'depth' was unexpected"),
        ("kind: tokenizer\nrounds: many", "'many' is not valid"),
        ("kind: tokenizer\nlosses: {mse: {wait: 1}}", "is not valid"),
        ("kind: generator\noptimization: {betas: [0.9]}", "[0.9] is too short"),
        ("kind: generator\nnetwork: {prediction: both}", "'both' is not one of ['ind', 'bit']"),
        ("kind: generator\nnetwork: {type: text_transformer, bottleneck: 3}", "'bottleneck' was unexpected"),
        ("kind: generator\ndata: {type: packed, batch: 3}", "'batch' was unexpected"),
    ],
)
def test_a_mistake_is_found_in_its_own_section(validator, text, words):
    (only,) = problems(validator, text)
    assert words in only


@pytest.mark.parametrize(
    "text",
    [
        "kind: tokenizer\nlosses: {mse: 4, gan: {weight: 1e-2, start: 100}}\nrounds: [1, 2, 4]",
        "kind: tokenizer\nrounds: null\ndata: {image: null, clip: {frames: 5}}",
        "kind: generator\nnetwork: {depth: 2}\nrefinement: {shift: area}",
        "kind: generator\nnetwork: {type: text_transformer}\ndata: {type: packed}\ntext: {clip: {prefix: a}}",
    ],
)
def test_what_grn_takes_follows_the_schema(validator, text):
    assert problems(validator, text) == []


def test_the_schema_says_what_a_field_means():
    definitions = recipe_schema()["$defs"]
    clip = definitions["ClipData"]["properties"]
    assert clip["fps"]["description"].startswith("Frames a second")
    assert definitions["GeneratorOptimization"]["properties"]["betas"]["description"]  # declared by its base


@dataclass
class Base:
    """Things. More of them."""

    size: int = 1  # in pixels
    # Above,
    # in two lines.
    plain: int = 2
    silent: int = 3


@dataclass
class Derived(Base):
    """Others."""

    size: int = 4
    silent: int = 5  # "#" stands for itself


def test_meanings_are_the_comments_beside_the_fields():
    assert meanings(Base) == {"size": "In pixels.", "plain": "Above, in two lines."}
    assert meanings(Derived) == {**meanings(Base), "silent": '"#" stands for itself.'}
