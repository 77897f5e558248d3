"""The JSON schema of recipes, for editors: made of the dataclasses that grn reads."""

import json
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.recipe_meanings import meanings
from grncli.runs.tokenizer_recipe import TokenizerRecipe

RECIPES: dict[str, type[Any]] = {"tokenizer": TokenizerRecipe, "generator": AskedGeneratorRecipe}
"""What a recipe of each kind holds."""

# Editors know this draft best, and nothing here needs a later one.
DRAFT = "http://json-schema.org/draft-07/schema#"


def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe of either kind, which its field ``kind`` tells, with the meaning of each field."""
    definitions: dict[str, Any] = {}
    places = {}
    for kind, schema in RECIPES.items():
        made = TypeAdapter(schema).json_schema(schema_generator=_RecipeJsonSchema)
        definitions |= made.pop("$defs")
        definitions[schema.__name__] = made
        places[kind] = {"$ref": f"#/$defs/{schema.__name__}"}
    kinds = {"enum": list(RECIPES), "description": "What the recipe is for: grn train-tokenizer or grn train-gen."}
    return {
        "$schema": DRAFT,
        "title": "Recipe of grn",
        "type": "object",
        "properties": {"kind": kinds},
        "required": ["kind"],
        **_chosen("kind", places, default="generator"),
        "$defs": definitions,
    }


def schema_text() -> str:
    """`recipe_schema` as the text of a file."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def _chosen(field: str, places: dict[str, Any], *, default: str) -> dict[str, Any]:
    """One of several schemas by the value of a field; unlike oneOf this lets editors say what is wrong in the one."""
    schema: dict[str, Any] = places[default]
    for value, place in places.items():
        if value != default:
            condition = {"properties": {field: {"const": value}}, "required": [field]}
            schema = {"if": condition, "then": place, "else": schema}
    return schema


class _RecipeJsonSchema(GenerateJsonSchema):
    """Says what fields mean, that there are no others, and which section a field ``type`` chooses."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Of a section."""
        section: Any = schema["cls"]
        made = super().dataclass_schema(schema)
        for name, meaning in meanings(section).items():
            made["properties"][name]["description"] = meaning
        return {**made, "additionalProperties": False}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Of a section that is one of several."""
        tag: Any = schema["discriminator"]
        places = {str(name): self.generate_inner(choice) for name, choice in schema["choices"].items()}
        return _chosen("type", places, default=tag({}))

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """Of a list; all its items are alike, which the draft says in another way than a later one."""
        made = super().tuple_schema(schema)
        if "prefixItems" in made:
            made["items"] = made.pop("prefixItems")[0]
        return made

    def field_title_should_be_set(self, schema: Any) -> bool:
        """A title made of a field's name says nothing new."""
        return False
