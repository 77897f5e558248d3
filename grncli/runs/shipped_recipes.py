"""The recipes that come with grn: their names, what each is for, and copies of them that an editor understands."""

import difflib
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from grncli.runs.recipe import load_fields, read_text
from grncli.runtime.errors import RecipeError, UsageError
from grncli.runtime.files import replace_file
from grncli.runtime.jsonfiles import brief

SCHEMA_FILE = "recipe.schema.json"  # beside the recipes, which name it in their first line
EDITOR_LINE = "# yaml-language-server: $schema="
SUGGESTIONS = 3
COMMANDS = {"tokenizer": "train-tokenizer", "generator": "train-gen"}
"""What takes a recipe of each kind."""


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with grn.

    Attributes
    ----------
    name : what commands take in place of a file
    description : how the comment that the file begins with starts, up to a full stop or colon
    """

    name: str
    path: Path
    description: str


@cache
def recipes_folder() -> Path:
    """Where the shipped recipes lie: in the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def shipped_names(kind: str = "") -> list[str]:
    """Names of the shipped recipes, or of those of a ``kind``, in alphabetical order."""
    paths = sorted(recipes_folder().glob("*.yaml"), key=lambda path: path.stem)
    return [path.stem for path in paths if not kind or f"\nkind: {kind}\n" in path.read_text(encoding="utf-8")]


def shipped_recipes() -> list[ShippedRecipe]:
    """All of them, in the order of their names."""
    paths = [recipes_folder() / f"{name}.yaml" for name in shipped_names()]
    return [ShippedRecipe(path.stem, path, _description(path.read_text(encoding="utf-8"))) for path in paths]


def find_recipe(place: Path | str) -> Path:
    """The file of a recipe that is named by a path, or by the name of a shipped one; a file that exists wins.

    Raises
    ------
    RecipeError
        For a bare name that is neither, with the nearest shipped names; and for a missing file of a shipped name. Other
        paths are returned as they are.
    """
    path = Path(place)
    if path.is_file():
        return path
    names = shipped_names()
    bare = path.name == str(place)
    if bare and path.name in names:
        return recipes_folder() / f"{path.name}.yaml"
    if os.path.lexists(path):
        return path
    if path.suffix == ".yaml" and path.stem in names:
        raise RecipeError(f"{path}: there is no such file; the shipped recipe of this name is {path.stem}")
    if bare and not path.suffix:
        near = difflib.get_close_matches(path.name, names, n=SUGGESTIONS)
        hint = f"did you mean {' or '.join(near)}?" if near else "grn recipe list names the shipped ones"
        raise RecipeError(f"{brief(path.name)} is neither a file nor a shipped recipe; {hint}")
    return path


def copy_recipe(source: Path, target: Path, *, overwrite: bool) -> Path:
    """Write a copy of a recipe and, beside it, the schema that its first line names for editors.

    Parameters
    ----------
    target : a file, or a folder for a file of the same name

    Raises
    ------
    RecipeError
        If the source holds no fields and values.
    UsageError
        If the file exists and is not to be overwritten, or has the name of the schema, or another one has it.
    """
    file = target / source.name if target.is_dir() else target
    beside = file.parent / SCHEMA_FILE
    if not file.absolute().parent.is_dir():
        raise UsageError(f"{file}: there is no such folder, expected one that exists")
    if file.name == SCHEMA_FILE:
        raise UsageError(f"{file}: is the name of the schema beside the copy; give another name")
    if os.path.lexists(file) and not overwrite:
        raise UsageError(f"{file}: exists already; give another name, or --overwrite")
    if os.path.lexists(beside) and '"title": "Recipe of grn"' not in beside.read_text("utf-8", errors="replace"):
        raise UsageError(f"{beside}: is no schema of recipes, whose place it takes; move it, or copy to another folder")
    load_fields(source)  # only to refuse what is no recipe
    lines = read_text(source).splitlines(keepends=True)
    kept = "".join(line for line in lines if not line.startswith(EDITOR_LINE))
    replace_file(file, f"{EDITOR_LINE}{SCHEMA_FILE}\n{kept}".encode())
    replace_file(beside, (recipes_folder() / SCHEMA_FILE).read_bytes())
    return file


def _description(text: str) -> str:
    """The comment at the head of a recipe, up to the first full stop or colon."""
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith(EDITOR_LINE):
            continue
        if not line.startswith("#"):
            break
        words += line.lstrip("#").split()
    return re.split(r"[.:](?: |$)", " ".join(words))[0]
