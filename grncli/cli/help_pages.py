"""How help reads: commands in whole sentences, options by section, and examples. Man pages are made of the same."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from grncli.cli.colour import styled
from grncli.cli.usage_errors import told_once

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Rows = list[tuple[str, str]]

COMMON = "Common options"  # the section of what every command takes
_CHOICES = re.compile(r" <([^<>]*\|[^<>]*)>$")  # of an option, where its declaration names no metavar
LONGEST_SENTENCE = 1000  # characters; the library cuts the first sentence of a help there


def examples(*lines: str) -> Callable[[Decorated], Decorated]:
    """Give a command examples for the end of its help.

    Parameters
    ----------
    lines : of a shell, each of at most 78 columns, with ``# comments`` before commands that need one; the command has
        them as its attribute ``examples``
    """

    def keep(command: Decorated) -> Decorated:
        command.examples = lines  # type: ignore[attr-defined]
        return command

    return keep


def examples_of(command: Any) -> Sequence[str]:
    """Lines of the examples of a command as the library knows it."""
    return getattr(command.callback, "examples", ())


def option_sections(command: Any, context: Any) -> dict[str, Rows]:
    """What a command takes, by section: arguments, the named sections, other options, what every command takes.

    Returns
    -------
    name of the section to rows of a name (``--seed N``) and its help; none is empty.
    """
    sections: dict[str, Rows] = {"Arguments": []}
    for parameter in command.get_params(context):
        name, text = parameter.get_help_record(context) or ("", "")
        if not name:  # a hidden one
            continue
        section = getattr(parameter, "rich_help_panel", None) or ("Options" if parameter.name != "help" else COMMON)
        if parameter.param_type_name == "argument":
            section, name, text = "Arguments", _argument(parameter), text.removesuffix("[required]").rstrip()
        sections.setdefault(section, []).append((_CHOICES.sub(r" \1", name), text))
    for last in ("Options", COMMON):
        sections[last] = sections.pop(last, [])
    return {name: rows for name, rows in sections.items() if rows}


def command_sections(group: Any, context: Any) -> dict[str, Rows]:
    """The commands of a group by section, each with its first sentence."""
    sections: dict[str, Rows] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            section = getattr(command, "rich_help_panel", None) or "Commands"
            sections.setdefault(section, []).append((name, command.get_short_help_str(LONGEST_SENTENCE)))
    return sections


def usage_pieces(command: Any, context: Any) -> list[str]:
    """What follows the name in the line of usage."""
    arguments = [_argument(each) for each in command.get_params(context) if each.param_type_name == "argument"]
    return ["[OPTIONS]", *arguments, *([command.subcommand_metavar] if isinstance(command, TyperGroup) else [])]


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _write(formatter: Any, sections: dict[str, Rows]) -> None:
    for name, rows in sections.items():
        with formatter.section(_heading(name)):
            formatter.write_dl(rows)


def _write_examples(command: Any, formatter: Any) -> None:
    if lines := examples_of(command):
        with formatter.section(_heading("Examples")):
            for line in lines:
                formatter.write(f"  {line}\n")


def _heading(text: str) -> str:
    return styled(text, sys.stdout, bold=True)


class CommandHelp(TyperCommand):
    """A command with our help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of any command; of several processes one prints what is wrong."""
        with told_once(self):
            return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name in the line of usage."""
        return usage_pieces(self, ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options by section."""
        _write(formatter, option_sections(self, ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples."""
        _write_examples(self, formatter)


class GroupHelp(TyperGroup):
    """A group of commands with our help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of any group; of several processes one prints what is wrong."""
        with told_once(self):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As of any group; of several processes one prints which command there is not."""
        with told_once(self):
            return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name in the line of usage."""
        return usage_pieces(self, ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Commands, then options."""
        _write(formatter, command_sections(self, ctx) | option_sections(self, ctx))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples."""
        _write_examples(self, formatter)


class HelpfulApp(typer.Typer):
    """Commands, all of them with our help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=GroupHelp, no_args_is_help=True, rich_markup_mode=None, **settings)

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = CommandHelp, **settings: Any
    ) -> Callable[[Decorated], Decorated]:
        """As of any app, with our help."""
        return super().command(name, cls=cls, **settings)


def walk_commands(command: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    """A command and all below it, each with its context, whose ``command_path`` is as a user types it."""
    yield command, context
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from walk_commands(below, type(context)(below, info_name=name, parent=context))
