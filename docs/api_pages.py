"""The Python calls of ``grncli``, from their signatures and docstrings."""

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from command_pages import escape

import grncli
from grncli.runs.recipe_meanings import declared_meanings

EXAMPLES = Path(__file__).parent / "examples"
QUOTES = "'"


def api_pages() -> dict[str, str]:
    """The page by its path below ``docs``."""
    lines = ["# Python reference", "", "What `import grncli` gives. How the pieces fit together: [Python](python.md)."]
    public = {name: getattr(grncli, name) for name in grncli.__all__}
    for name, call in sorted(public.items(), key=lambda item: (inspect.isclass(item[1]), item[0])):  # calls first
        lines += ["", f"## {name}", "", "```python", f"grncli.{name}{signature(call)}", "```", ""]
        lines += [*docstring(call), *options(call), *example(name)]
    return {"api.md": "\n".join(lines) + "\n"}


def signature(call: Any) -> str:
    """Arguments and result as the source has them, one argument a line where they do not fit into one."""
    if inspect.isclass(call):
        return ""
    function = ast.parse(textwrap.dedent(inspect.getsource(call))).body[0]
    assert isinstance(function, ast.FunctionDef)
    result = f" -> {ast.unparse(function.returns).strip(QUOTES)}" if function.returns else ""
    text = f"({ast.unparse(function.args)}){result}"
    if len(text) <= 90:
        return text
    parts = re.split(r", (?=\*|\w+\b[:=])", ast.unparse(function.args))
    return "(\n    " + ",\n    ".join(parts) + f",\n){result}"


def docstring(call: Any) -> Iterator[str]:
    """A NumPy-style docstring as Markdown: its sections in bold, their entries as lists."""
    heading = ""
    for following, line in zip([*rows(call)[1:], ""], rows(call), strict=True):
        if following and set(following) == {"-"}:
            heading = line
            yield from ([f"**{line}**", ""])
        elif line and set(line) == {"-"}:
            continue
        elif heading and line and not line.startswith(" "):
            name, _, meaning = line.partition(" : ")
            yield f"- `{name}`: {prose(meaning)}".rstrip()
        else:
            yield ("  " if heading else "") + prose(line.strip()) if line else ""


def rows(call: Any) -> list[str]:
    """The lines of a docstring, without its indentation."""
    return inspect.cleandoc(call.__doc__ or "").splitlines()


def prose(text: str) -> str:
    """A line of a docstring as Markdown."""
    parts = re.split(r"(``.*?``|`.*?`)", text)
    return "".join(f"`{part.strip('`')}`" if part.startswith("`") else escape(part) for part in parts)


def options(call: Any) -> Iterator[str]:
    """What a call takes beyond its own arguments, where a class lists it: ``**options: Unpack[TokenizeOptions]``."""
    listed = re.search(r"Unpack\[(\w+)\]", signature(call))
    if listed is not None:
        yield from ("", f"**{listed[1]}**", "")
        for name, kind, meaning in listed_options(listed[1], inspect.unwrap(call).__globals__):
            yield f"- `{name}: {kind}`" + (f": {escape(meaning)}" if meaning else "")


def listed_options(name: str, names: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each option that a class lists, those of its bases first; ``names`` has the classes."""
    listing = names[name]
    known = declared_meanings(listing)
    (declaration,) = ast.parse(textwrap.dedent(inspect.getsource(listing))).body
    assert isinstance(declaration, ast.ClassDef)
    for base in declaration.bases:
        if ast.unparse(base) != "TypedDict":
            yield from listed_options(ast.unparse(base), vars(sys.modules[listing.__module__]))
    for node in declaration.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, ast.unparse(node.annotation), known.get(node.target.id, "")


def example(name: str) -> Iterator[str]:
    """A link to the example of a call, where there is one."""
    for path in sorted(EXAMPLES.glob("*.py")):
        if re.search(rf"\bgrncli\.{name}\(", path.read_text(encoding="utf-8")):
            yield from ("", f"Example: [{path.name}](examples/{path.name})")
