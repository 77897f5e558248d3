"""Usage errors that the library finds: of several processes that run one command, the first prints them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer

from grncli.runtime.errors import UsageError
from grncli.runtime.launch import read_launch


@contextmanager
def told_once(command: Any) -> Iterator[None]:
    """For a block in which the library parses the arguments of a command or of a group of them.

    Processes that run the command together tell each other, by what its callback has as ``refused``. Where the command
    is not known, all but the first end without a word. Other commands are each their own.
    """
    try:
        yield
    except Exception as error:
        if hasattr(error, "format_message"):
            _end_all_but_first(command, UsageError(error.format_message()))
        raise


def _end_all_but_first(command: Any, error: UsageError) -> None:
    with suppress(UsageError):
        if refused := getattr(command.callback, "refused", None):
            refused(error)
        elif hasattr(command, "commands") and read_launch(os.environ).rank:
            raise typer.Exit(2)
