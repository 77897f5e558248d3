"""Which rows a list of names means: keys and sources of a bit store, prompts of a features store."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grncli.media.listing.path_lists import standard_input
from grncli.runtime.errors import UsageError
from grncli.runtime.files import open_plain
from grncli.runtime.text import printable
from grncli.store.rows.row_reader import RowStore
from grncli.store.rows.schema import Schema

STANDARD_INPUT = "-"


def read_names(file: str) -> list[str]:
    """The lines of a file, or of standard input for ``-``; blank ones do not count.

    Raises
    ------
    UsageError
        If the file cannot be read, or has no line.
    """
    try:
        if file == STANDARD_INPUT:
            data = standard_input()
        else:
            with os.fdopen(open_plain(Path(file)), "rb") as opened:
                data = opened.read()
    except OSError as error:
        raise UsageError(f"--keys {file}: cannot be read ({error.strerror}), expected a file of names") from None
    names = [os.fsdecode(line) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    names = [name.removesuffix("\r") for name in names]
    if not (names := [name for name in names if name.strip()]):
        raise UsageError(f"--keys {file}: has no line, expected names of samples, one a line")
    return names


class NamedRows:
    """Looks rows up in a list of names, and notes which names were met."""

    def __init__(self, names: Sequence[str], schema: Schema) -> None:
        self._fields = schema.required_fields
        # As they are, and as messages and lists of ours show them.
        self._asked = {form: name for name in names for form in (printable(name), name)}
        self.missing = dict.fromkeys(names)

    def __contains__(self, line: object) -> bool:
        assert isinstance(line, Mapping)
        names = [self._asked[line[field]] for field in self._fields if line.get(field) in self._asked]
        for name in names:
            self.missing.pop(name, None)
        return bool(names)

    def require_met(self, store: Path) -> None:
        """UsageError with the first name that no row has."""
        if self.missing:
            first, count = printable(next(iter(self.missing))), len(self.missing)
            more = f" (and {count - 1} more)" if count > 1 else ""
            fields = " or ".join(self._fields)
            raise UsageError(f"{store}: has no {fields} {first}{more}; nothing was changed, correct the list")


def all_lines(store: RowStore[Any]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Part and line of every stored row, also of dropped ones."""
    for number, part in store.stored_parts().items():
        for line in part.lines.stored():
            yield number, line
