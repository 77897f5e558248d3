"""The fields of recipes, from their dataclasses; and the shipped recipes."""

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import torch
from command_pages import escape

from grncli.models.tokenizer import Tokenizer
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.recipe import dump_flow, read_recipe
from grncli.runs.recipe_faults import in_words
from grncli.runs.recipe_fields import members_of
from grncli.runs.recipe_meanings import meanings
from grncli.runs.tokenizer_recipe import Term, TokenizerRecipe

ROOT = Path(__file__).parents[1]
RECORDED = ("imported", "started_from", "bits", "kind")  # written by the program, or the same in every recipe


def recipe_pages() -> dict[str, str]:
    """Pages by their path below ``docs``."""
    return {"recipe-fields.md": fields_page(), "recipe-list.md": list_page()}


def fields_page() -> str:
    """Every field with its type, default and meaning, a table for each section."""
    lines = [
        "# Recipe fields",
        "",
        "What a recipe may say, and what holds where it says nothing. On the command line a field is written with its",
        "sections: `training.steps=5000`. How to use recipes: [Training](training.md).",
    ]
    for title, command, schema in (
        ("Tokenizers", "train-tokenizer", TokenizerRecipe),
        ("Generators", "train-gen", AskedGeneratorRecipe),
    ):
        lines += ["", f"## {title}", "", f"`kind: {title.lower()[:-1]}`, for [`grn {command}`](commands/{command}.md)."]
        for name, section, choice in sections(schema):
            heading = f"`{name}`" if name else f"Top level of {title.lower()}"
            lines += ["", f"### {heading}{choice}", "", about(section), "", *table(section)]
    return "\n".join(lines) + "\n"


def sections(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Each section below a dataclass: its dotted name, its dataclass, and which of several kinds it is."""
    yield prefix.rstrip("."), schema, choice_of(schema) if prefix else ""
    hints = get_type_hints(schema, include_extras=True)
    for each in fields(schema):
        if each.name not in RECORDED:
            for section in inner_sections(hints[each.name]):
                yield from sections(section, f"{prefix}{each.name}.")


def inner_sections(hint: Any) -> list[Any]:
    """Dataclasses that a field may hold; a loss is described with the field that has it."""
    return [each for each in members_of(hint) if is_dataclass(each) and each is not Term]


def about(schema: Any) -> str:
    """The docstring of a section, without references to notes that readers do not have."""
    text = re.sub(r" \(facts [^)]*\)|; facts [^)]*", "", " ".join((schema.__doc__ or "").split()))
    return escape(text).replace("``", "`")


def choice_of(schema: Any) -> str:
    """``, type: packed`` of a section that is one of several kinds."""
    kinds = get_args(get_type_hints(schema).get("type"))
    return f", `type: {kinds[0]}`" if kinds else ""


def table(schema: Any) -> list[str]:
    """The fields of a section as rows."""
    known, hints = meanings(schema), get_type_hints(schema, include_extras=True)
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for each in fields(schema):
        if each.name not in RECORDED:
            rows.append(f"| `{each.name}` | {kind(hints[each.name])} | {default(each)} | {escape(known[each.name])} |")
    return rows


def kind(hint: Any) -> str:
    """A type in words: ``a whole number or null``; what a section holds is in its own table."""
    members = members_of(hint)
    if Term in members:
        return f"a number, or {in_words(Term)}"
    if any(is_dataclass(each) for each in members):
        return "a section or null" if NoneType in members else "a section"
    return escape(in_words(hint))


def default(each: "Field[Any]") -> str:
    """A default as YAML; what an empty section stands for is in its own table."""
    value = each.default_factory() if each.default_factory is not MISSING else each.default
    if isinstance(value, Term):
        return f"`{value.weight:g}`"
    if value is MISSING:
        return "required"
    return "see below" if is_dataclass(value) else f"`{dump_flow(value)}`"


def list_page() -> str:
    """The shipped recipes with the comments that they begin with."""
    lines = ["# Shipped recipes", "", "In `recipes/`; each says what it is for and what it takes.", ""]
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        opening = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))
        lines += [f"## {path.stem}", "", f"[recipes/{path.name}](../recipes/{path.name})", ""]
        lines += [*opening_comment(opening[0] if opening else ""), ""]
        if path.stem.startswith("tokenizer-"):
            lines += [sizes(read_recipe(path, TokenizerRecipe)), ""]
    return "\n".join(lines)


def sizes(recipe: TokenizerRecipe) -> str:
    """What the network of a tokenizer amounts to, counted on tensors without memory."""
    with torch.device("meta"):
        network = Tokenizer(recipe.network, recipe.most_rounds)
    parameters = sum(each.numel() for each in network.parameters()) / 1e6
    stride = "x".join(str(each) for each in recipe.network.stride)
    return f"{parameters:,.1f} M parameters, stride {stride}, C = {recipe.network.channels}, M = {recipe.most_rounds}."


def opening_comment(text: str) -> list[str]:
    """A comment as Markdown: its indented lines are commands, and what editors read is left out."""
    lines: list[str] = []
    code = False
    for row in text.splitlines():
        row = row.removeprefix("#").removeprefix(" ")
        if row.startswith("yaml-language-server"):
            continue
        if row.startswith(" ") != code:
            lines.append("```" if code else "```sh")
            code = not code
        lines.append(row.strip() if not code else row.removeprefix("  "))
    return [*lines, "```"] if code else lines
