"""Colour for people at a terminal, and for nobody else."""

import os
from typing import Any, TextIO

import typer


def is_coloured(stream: TextIO | None) -> bool:
    """Whether what is written to ``stream`` may have colour.

    Only a terminal that is not a dumb one has it, and none where the variable NO_COLOR is set to anything
    (https://no-color.org).
    """
    return (
        stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    )


def styled(text: str, stream: TextIO | None, **style: Any) -> str:
    """``text`` in a style of `typer.style` (``bold=True``, ``fg="red"``) where ``stream`` shows it, else as it is."""
    return typer.style(text, **style) if is_coloured(stream) else text
