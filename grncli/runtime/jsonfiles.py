"""JSON on disk: read with bounds, written so that any file name survives.

Names of files are any bytes, which Python holds as text with surrogates; in JSON these stand as ``\\udcff`` escapes,
which every parser reads and ``os.fsencode`` turns back into the bytes.
"""

import json
import os
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grncli.runtime.errors import GrnError
from grncli.runtime.files import naming, open_plain, read_plain
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
    try:
        data = read_plain(path, most)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"{path}: cannot be read as JSON ({problem.strerror or problem}); {remedy}") from None
    if data is None:
        raise error(f"{path}: is larger than {most >> 10} KiB, expected a small JSON document; {remedy}")
    return parse_json(data, path, error=error, remedy=remedy)


def parse_json(data: bytes, path: Path | str, *, error: type[GrnError], remedy: str) -> Any:
    """``data`` as JSON; ``path`` is what the error names."""
    try:
        return json.loads(data)
    except RecursionError:
        reason = "it is nested too deeply"
    except ValueError as problem:  # also UnicodeDecodeError, and a number of thousands of digits
        reason = one_line(problem, 120)
    raise error(f"{path}: cannot be read as JSON ({reason}); {remedy}") from None


def json_lines(path: Path, *, error: type[GrnError], remedy: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file in order; a last line without its end, which a killed process left, is none.

    Lines end at a line feed only: names may hold what else Unicode takes for the end of a line. Raises as `read_json`,
    naming the number of the line, also for a line that is no object.
    """
    with os.fdopen(open_plain(path), "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            place = f"{path}:{number}"
            value = parse_json(line, place, error=error, remedy=remedy)
            if not isinstance(value, dict):
                raise error(f"{place}: holds {brief(value)}, expected a JSON object; {remedy}")
            yield value


def cut_torn_line(path: Path) -> None:
    """Take away a last line without its end, so that lines can be appended; harmless where there is no such file."""
    try:
        os.close(open_plain(path))
    except FileNotFoundError:
        return
    with naming(path), path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - (1 << 16))
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end < size:
            file.truncate(end)
