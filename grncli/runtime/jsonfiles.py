"""JSON on disk: read with bounds, written so that any file name survives.

Names of files are any bytes, which Python holds as text with surrogates; in JSON these stand as ``\\udcff`` escapes,
which every parser reads and ``os.fsencode`` turns back into the bytes.
"""

import json
import os
import reprlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from grncli.runtime.errors import GrnError
from grncli.runtime.files import open_plain, whole_file
from grncli.runtime.text import one_line

MAX_BYTES = 64 << 20
"""Largest JSON document that is read whole."""
SHOWN = 120  # characters of a value in a message

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = _brief.maxlong = 60
_brief.maxdict = _brief.maxlist = _brief.maxtuple = 4
_brief.maxlevel = 2


def brief(value: Any) -> str:
    """``repr`` of a value from a file, on one line and short whatever the value is."""
    text = _brief.repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def or_null(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if value != value else value


def to_json(document: Any, *, indent: int | None = None) -> str:
    """JSON text that UTF-8 can encode, whatever bytes the names in it have."""
    text = json.dumps(document, ensure_ascii=False, indent=indent)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(path: Path, document: Any) -> None:
    """Put a document into a file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(to_json(document, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path, *, error: type[GrnError], remedy: str, most: int = MAX_BYTES) -> Any:
    """The document in a file.

    Parameters
    ----------
    error : raised for anything that is no readable JSON document of at most ``most`` bytes, as one sentence that ends
        with ``remedy``

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    return load_json(lambda: os.fdopen(open_plain(path), "rb"), str(path), error=error, remedy=remedy, most=most)


def load_json(
    opener: Callable[[], BinaryIO],
    where: str,
    *,
    error: type[GrnError],
    remedy: str,
    most: int = MAX_BYTES,
    seen: Callable[[bytes], object] = lambda data: None,
) -> Any:
    """As `read_json`, of a file that ``opener`` opens and messages call ``where``; its bytes go to ``seen``."""
    try:
        with opener() as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"{where}: cannot be read as JSON ({problem.strerror or problem}); {remedy}") from None
    if len(data) > most:
        raise error(f"{where}: is larger than {most >> 10} KiB, expected a small JSON document; {remedy}")
    seen(data)
    return parse_json(data, where, error=error, remedy=remedy)


def parse_json(data: bytes, path: Path | str, *, error: type[GrnError], remedy: str) -> Any:
    """``data`` as JSON; ``path`` is what the error names."""
    try:
        return json.loads(data)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as problem:  # also UnicodeDecodeError, and a number of thousands of digits
        reason = one_line(problem, 120)
    raise error(f"{path}: cannot be read as JSON ({reason}); {remedy}") from None
