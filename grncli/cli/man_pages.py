"""Manual pages (roff) of the commands, made of the same texts as their help."""

from collections.abc import Iterator, Sequence
from inspect import cleandoc
from typing import Any

from grncli.cli.help_pages import command_sections, examples_of, option_sections, usage_pieces, walk_commands

SECTION = 1  # of the manual: programs


def command_pages(root: Any, version: str) -> dict[str, str]:
    """The page of every command below the context of the program, by its file name."""
    pages = list(walk_commands(root.command, root))
    names = [page_name(about) for _, about in pages]
    return {
        f"{name}.{SECTION}": man_page(command, about, [other for other in names if other != name], version=version)
        for (command, about), name in zip(pages, names, strict=True)
    }


def page_name(context: Any) -> str:
    """``grn-eval-gen`` for ``grn eval gen``."""
    return str(context.command_path).replace(" ", "-")


def man_page(command: Any, context: Any, see_also: Sequence[str] = (), *, version: str) -> str:
    """The page of a command, as roff with the macros of ``man``.

    Parameters
    ----------
    context : of the command, whose ``command_path`` is as a user types it
    see_also : names of other pages
    version : of the program
    """
    return "\n".join(_lines(command, context, see_also, version)) + "\n"


def _lines(command: Any, context: Any, see_also: Sequence[str], version: str) -> Iterator[str]:
    name = page_name(context)
    first, *paragraphs = cleandoc(command.help or "").split("\n\n")
    summary = " ".join(first.split()).rstrip(".")
    yield f'.TH {_quoted(name.upper())} {SECTION} "" {_quoted(f"grn {version}")} "Generative Refinement Networks"'
    # No hyphenation and no justified lines, which tear names of options apart.
    yield from (".nh", ".ad l", ".SH NAME", f"{_text(name)} \\- {_text(summary)}", ".SH SYNOPSIS")
    yield f"\\fB{_text(context.command_path)}\\fR {_text(' '.join(usage_pieces(command, context)))}"
    if paragraphs:
        yield ".SH DESCRIPTION"
    for place, paragraph in enumerate(paragraphs):
        yield from ((".PP",) if place else ())
        yield _text(" ".join(paragraph.split()))
    commands = command_sections(command, context) if hasattr(command, "commands") else {}
    for title, rows in (commands | option_sections(command, context)).items():
        yield f".SH {_quoted(title.upper())}"
        for what, text in rows:
            yield from (".TP", f"\\fB{_text(what)}\\fR", _text(" ".join(text.split())))
    if lines := examples_of(command):
        yield from (".SH EXAMPLES", ".nf", *map(_text, lines), ".fi")
    if see_also:
        yield from (".SH SEE ALSO", ", ".join(f"\\fB{_text(other)}\\fR({SECTION})" for other in see_also))


def _text(text: str) -> str:
    """As roff shows it: no character of it is a request, an escape, or a hyphen where a minus stands."""
    escaped = text.replace("\\", "\\(rs").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    escaped = escaped.replace("^", "\\(ha").replace("~", "\\(ti")
    escaped = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


def _quoted(text: str) -> str:
    """As one argument of a request."""
    return f'"{_text(text).replace(chr(34), chr(92) + "(dq")}"'
