"""A page for each command of ``grn``, of what also makes its ``--help`` and its manual page."""

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from typer.main import get_command

from grncli.cli import app
from grncli.cli.help_pages import command_sections, examples_of, option_sections, usage_pieces, walk_commands

NOTES = re.compile(r"\s*\[([^][]*)\]$")  # how the help of an option ends: [default: 0; x>=0]


def command_pages() -> dict[str, str]:
    """Pages by their path below ``docs``: the list of all commands, and one of each."""
    root: Any = get_command(app)
    context = root.context_class(root, info_name="grn", **root.context_settings)
    pages = {
        f"commands/{slug(about.command_path)}.md": command_page(command, about)
        for command, about in walk_commands(root, context)
        if not hasattr(command, "commands")
    }
    return {"commands/README.md": overview(root, context), **pages}


def slug(name: str) -> str:
    """Name of the page of a command: ``eval-gen`` for ``grn eval gen``."""
    return name.removeprefix("grn ").replace(" ", "-")


def overview(root: Any, context: Any) -> str:
    """The list of commands, with the options that stand before any of them."""
    lines = ["# Commands", "", *paragraphs(root.help), "", *example(root)]
    for section, rows in command_sections(root, context).items():
        lines += ["", f"## {section}", "", "| command | what it does |", "|---|---|"]
        for name, text in rows:
            lines += command_rows(root.commands[name], f"grn {name}", text)
    lines += ["", "How commands stop and resume, and their exit codes: [Running](../running.md).", ""]
    lines += ["## Before the name of a command", "", *items(option_sections(root, context))]
    return "\n".join(lines).rstrip() + "\n"


def command_rows(command: Any, name: str, text: str) -> Iterator[str]:
    """A command as a row, or those of a group."""
    if not hasattr(command, "commands"):
        yield f"| [`{name}`]({slug(name)}.md) | {escape(text)} |"
        return
    for rows in command_sections(command, None).values():
        for short, about in rows:
            yield from command_rows(command.commands[short], f"{name} {short}", about)


def command_page(command: Any, context: Any) -> str:
    """Usage, description, arguments, options and examples."""
    usage = " ".join([context.command_path, *usage_pieces(command, context)])
    lines = [f"# {context.command_path}", "", *paragraphs(command.help), "", "```text", usage, "```", ""]
    for heading, rows in option_sections(command, context).items():
        lines += [f"## {heading}", "", *items({heading: rows}), ""]
    return "\n".join([*lines, "## Examples", "", *example(command)]) + "\n"


def items(sections: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Arguments or options as a list."""
    return [f"- **`{name}`**: {described(text)}" for rows in sections.values() for name, text in rows]


def described(text: str) -> str:
    """The help of an option, with its default and range in parentheses."""
    found = NOTES.search(text)
    return escape(text) if found is None else f"{escape(text[: found.start()])} ({escape(found[1])})"


def example(command: Any) -> list[str]:
    """Examples as a block for a shell."""
    return ["```sh", *examples_of(command), "```"]


def paragraphs(text: str | None) -> list[str]:
    """Paragraphs of help as Markdown."""
    joined = (escape(" ".join(each.split())) for each in cleandoc(text or "").split("\n\n"))
    return "\n\n".join(joined).split("\n")


def escape(text: str) -> str:
    """Text in which Markdown finds nothing of its own, with options as code."""
    plain = re.sub(r"([*|])", r"\\\1", text).replace("<", "&lt;")
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", plain)
