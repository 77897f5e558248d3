"""Standard output, whose errors name it as those of files name the file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

STANDARD_OUTPUT = "standard output"


class NamedOutput(TextIOWrapper):
    """Text written to standard output; what its encoding does not have, as names of files may, has escapes."""

    def write(self, text: str, /) -> int:
        """As of any text file, with the name in an OSError."""
        with _named():
            return super().write(text)

    def flush(self) -> None:
        """As of any text file, with the name in an OSError."""
        with _named():
            super().flush()


def name_output() -> None:
    """Let ``sys.stdout`` name itself in errors, unless it is no file."""
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper):
        sys.stdout = NamedOutput(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


def give_up_output() -> None:
    """Lose what is still buffered: Python would try once more at its end, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = STANDARD_OUTPUT
        raise
