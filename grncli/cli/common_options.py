"""What every command takes: ``-q``, ``--log-file`` and ``--debug``, before or after its name."""

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, TypeVar

from typer import Option

from grncli.cli.help_pages import COMMON

Command = TypeVar("Command", bound=Callable[..., Any])

Quiet = Annotated[
    bool,
    Option("--quiet", "-q", help="Print results and errors only, no progress and messages.", rich_help_panel=COMMON),
]
LogFile = Annotated[
    Path | None,
    Option(metavar="FILE", help="Append messages and progress to a file too, with times.", rich_help_panel=COMMON),
]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.", rich_help_panel=COMMON)]

DEFAULTS = {"quiet": False, "log_file": None, "debug": False}
_KINDS = {"quiet": Quiet, "log_file": LogFile, "debug": Debug}


def declare_common_options(command: Command) -> Command:
    """Add the options to the signature of a command, which takes them as keywords."""
    declared = signature(command)
    more = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=_KINDS[name])
        for name, default in DEFAULTS.items()
    ]
    command.__signature__ = declared.replace(parameters=[*declared.parameters.values(), *more])  # type: ignore[attr-defined]
    command.__annotations__ = command.__annotations__ | _KINDS
    return command
