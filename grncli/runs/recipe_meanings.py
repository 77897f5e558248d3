"""What the fields of a recipe mean, read from the comments beside their declarations: one place for code and pages."""

import ast
import inspect
import textwrap
import tokenize
from dataclasses import fields
from functools import cache
from io import StringIO


@cache
def meanings(section: type) -> dict[str, str]:
    """Meaning and unit of each field of a dataclass, in the order of the fields.

    A field's meaning is the lines of comment right above its declaration, or else the comment behind it, as one or more
    sentences. A field that a class declares anew without a comment keeps that of its base; fields without any are left
    out.
    """
    known: dict[str, str] = {}
    for base in reversed(section.__mro__[:-1]):
        known |= declared_meanings(base)
    return {each.name: known[each.name] for each in fields(section) if each.name in known}


def declared_meanings(section: type) -> dict[str, str]:
    """Those of the fields that this very class declares, a dataclass or another one."""
    try:
        source = textwrap.dedent(inspect.getsource(section))
    except (OSError, TypeError):  # a program without its sources, or a class of C
        return {}
    alone: dict[int, str] = {}  # comments by the number of their line
    behind: dict[int, str] = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            before = token.line[: token.start[1]]
            (behind if before.strip() else alone)[token.start[0]] = token.string
    known = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno
            while first - 1 in alone:
                first -= 1
            above = [alone[line] for line in range(first, node.lineno)]
            beside = [behind[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in behind]
            if above or beside:
                known[node.target.id] = _sentence(" ".join(text.lstrip("# ") for text in above or beside))
    return known


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"
