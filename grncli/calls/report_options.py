"""Files that calls write their reports to, as the commands do."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grncli.reporting.report_files import ReportFiles
from grncli.reporting.text_report import Report


class AskedReport:
    """The plot, sheet and page that a call was asked for; UsageError for one that could not be written.

    Parameters
    ----------
    call : name of the call
    arguments : those without a name
    options : the others, among them ``plot``, ``sheet`` and ``html``
    drawn : a page has a plot in it
    """

    def __init__(self, call: str, arguments: tuple[Any, ...], options: Mapping[str, Any], *, drawn: bool) -> None:
        paths = {name: Path(options[name]) for name in ("plot", "sheet", "html") if options.get(name) is not None}
        self._files = ReportFiles(**paths)
        self._files.check(drawn=drawn)
        self._asked = bool(paths)
        given = {name: value for name, value in options.items() if value is not None}
        texts = [*map(_literal, arguments), *(f"{name}={_literal(value)}" for name, value in given.items())]
        self._command = ["python", "-c", f"import grncli; grncli.{call}({', '.join(texts)})"]

    def write(self, describe: Callable[[], Report], *, is_main: bool = True) -> None:
        """Write what was asked for; of several processes, the first does."""
        if self._asked and is_main:
            self._files.write_files(describe(), self._command)


def _literal(value: Any) -> str:
    """A value as Python code; strings in double quotes, as the code stands in single ones."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_literal(name)}: {_literal(each)}' for name, each in value.items())}}}"
    return repr(value) if isinstance(value, int | float) else json.dumps(str(value), ensure_ascii=False)
