"""``grn recipe``: the recipes that come with grn, copies of them, and what is wrong with one's own."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import complain, guarded, print_json, say, works_alone
from grncli.cli.help_pages import HelpfulApp, examples
from grncli.runtime.errors import RecipeError

app = HelpfulApp()

Recipe = Annotated[
    Path,
    Argument(
        metavar="RECIPE",
        help="Name of a shipped recipe, or a YAML file.",
        show_default=False,
        autocompletion=options.recipe_names(),
    ),
]
Overrides = Annotated[
    list[str] | None,
    Argument(metavar="[FIELD=VALUE]...", help="Fields to change: training.steps=500", show_default=False),
]


@app.callback()
@examples(
    "grn recipe list",
    "grn recipe copy c2i-small-ind mine.yaml",
    "grn recipe check mine.yaml",
)
def recipe() -> None:
    """List, show, copy and check the recipes that trainings follow."""


@app.command("list")
@examples(
    "grn recipe list",
    "grn recipe list --json | jq -r '.[].name'",
)
@guarded
def list_(json: options.Json = False) -> None:
    """List the shipped recipes, each with the command that takes it."""
    works_alone()
    from grncli.cli.terminal import screen_width, table_lines
    from grncli.runs.recipe import load_fields
    from grncli.runs.shipped_recipes import COMMANDS, shipped_recipes

    found = [(each, COMMANDS[_kind_of(each.path, load_fields(each.path))]) for each in shipped_recipes()]
    if json:
        print_json(
            [
                {"name": each.name, "command": command, "description": each.description, "path": str(each.path)}
                for each, command in found
            ]
        )
        return
    rows = [[each.name, command, each.description] for each, command in found]
    for line in table_lines(["recipe", "for grn ...", "what it trains"], rows, screen_width(), names=(0, 1)):
        print(line)


@app.command("show")
@examples(
    "grn recipe show c2i-small-ind",
    "# Every field with its meaning",
    "grn recipe show tokenizer-small --full",
    "# What a change comes to",
    "grn recipe show tokenizer-small training.steps=500 --json",
)
@guarded
def show(
    recipe: Recipe,
    overrides: Overrides = None,
    full: Annotated[
        bool, Option("--full", help="Every field with its value and meaning, also those left at their defaults.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print a recipe.

    With fields to change, or with --full, every field of the result is printed below its meaning.
    """
    works_alone()
    from grncli.runs.shipped_recipes import find_recipe

    path = find_recipe(recipe)
    if not (full or overrides):
        from grncli.runs.recipe import load_fields, read_text

        fields = load_fields(path)
        if json:
            _print_fields(path, fields)
        else:
            print(read_text(path), end="")
        return
    from grncli.runs.explained_recipe import explained_recipe
    from grncli.runs.recipe import read_recipe

    settled = read_recipe(path, _schema_of(path), overrides or ())
    if json:
        print_json(asdict(settled))
    else:
        print(explained_recipe(settled), end="")


@app.command("copy")
@examples(
    "grn recipe copy c2i-small-ind",
    "grn recipe copy c2i-small-ind mine.yaml",
)
@guarded
def copy(
    recipe: Recipe,
    file: Annotated[
        Path | None,
        Argument(metavar="[FILE]", help="File or folder to write; default: RECIPE.yaml here.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, options.overwrite("Replace a file of that name.")] = False,
    json: options.Json = False,
) -> None:
    """Copy a recipe to change it, with a schema beside it for editors.

    Editors with a YAML language server explain, complete and check the fields of the copy.
    """
    works_alone()
    from grncli.runs.shipped_recipes import SCHEMA_FILE, copy_recipe, find_recipe

    copied = copy_recipe(find_recipe(recipe), file or Path(), overwrite=overwrite)
    if json:
        print_json({"recipe": str(copied), "schema": str(copied.parent / SCHEMA_FILE)})
    say(f"{copied}: a copy of {recipe}; {SCHEMA_FILE} beside it tells editors what its fields mean")


@app.command("check")
@examples(
    "grn recipe check mine.yaml",
    "grn recipe check c2i-small-ind training.steps=500",
)
@guarded
def check(recipe: Recipe, overrides: Overrides = None, json: options.Json = False) -> None:
    """Name everything that is wrong with a recipe; exit with 2 if there is anything."""
    works_alone()
    from grncli.runs.recipe import load_fields, overridden, recipe_faults
    from grncli.runs.recipe_schema import RECIPES
    from grncli.runs.shipped_recipes import COMMANDS, find_recipe

    path = find_recipe(recipe)
    fields = overridden(load_fields(path), overrides or ())
    kind = _kind_of(path, fields)
    faults = recipe_faults(fields, RECIPES[kind])
    if json:
        print_json({"recipe": str(path), "kind": kind, "command": COMMANDS[kind], "faults": faults})
    for fault in faults[:-1]:
        complain(f"{path}: {fault}")
    if faults:
        raise RecipeError(f"{path}: {faults[-1]}")
    say(f"{path}: is a recipe for grn {COMMANDS[kind]}, without a fault")


@app.command("schema")
@examples("grn recipe schema > recipe.schema.json")
@guarded
def schema() -> None:
    """Print the JSON schema of recipes, which editors read."""
    works_alone()
    from grncli.runs.recipe_schema import schema_text

    print(schema_text(), end="")


def _print_fields(path: Path, fields: dict[str, Any]) -> None:
    try:
        print_json(fields)
    except TypeError as error:
        raise RecipeError(f"{path}: {error}; grn recipe check names the field") from None


def _schema_of(path: Path) -> type[Any]:
    from grncli.runs.recipe import load_fields
    from grncli.runs.recipe_schema import RECIPES

    return RECIPES[_kind_of(path, load_fields(path))]


def _kind_of(path: Path, fields: dict[str, Any]) -> str:
    """``tokenizer`` or ``generator``, as the field kind says."""
    from grncli.runs.shipped_recipes import COMMANDS

    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in COMMANDS:
        found = f"kind is {kind!r}" if "kind" in fields else "has no field kind"
        raise RecipeError(f"{path}: {found}, expected kind: tokenizer or kind: generator")
    return kind
