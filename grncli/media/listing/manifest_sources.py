"""Media that a manifest names: paths relative to it, and what it says of them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

from grncli.media.listing.entries import Entry, file_problem, files_beside, path_entry, plain_path, problem_source
from grncli.media.listing.manifest_rows import merged, read_rows, with_span
from grncli.media.sources import ManifestRow, Source
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable
from grncli.runtime.urls import is_url

_REMEDY = "repair it, or choose columns with --columns path=NAME,caption=NAME"


def manifest_entries(src: str, columns: Mapping[str, str], *, outside: bool) -> Iterator[Entry]:
    """A source for each path and stretch of a clip that ``src`` names, in its order.

    Parameters
    ----------
    columns : as `read_rows` takes them
    outside : paths may leave the folder of ``src``

    Raises
    ------
    UsageError
        If ``src`` is no manifest, or a record is wrong: one sentence with file and line.
    """
    folder = _Folder(os.path.dirname(src), outside=outside)
    for row in merged(read_rows(src, columns, remedy=_REMEDY)):
        path, relative = folder.locate(row)
        entry = path_entry(path, relative, by_content=True)
        if not isinstance(entry, Source):
            entry = problem_source(path, relative, file_problem(path) or "is not a media file")
        entry = replace(entry, row=row, beside=tuple(files_beside(path)))
        if row.span is not None:
            name, relative = with_span(entry.name, row.span), with_span(relative, row.span)
            entry = replace(entry, span=row.span, name=name, relative=relative)
        yield entry


class _Folder:
    """The folder of a manifest, which paths in it are relative to.

    Parameters
    ----------
    path : as the user named it; empty for the working directory
    outside : paths may leave it
    """

    def __init__(self, path: str, *, outside: bool) -> None:
        self._path = path
        self._outside = outside
        self._inside = os.path.join(os.path.abspath(path), "")

    def locate(self, row: ManifestRow) -> tuple[str, str]:
        """Where the file of a row lies, and its path below the folder, without ``..`` where it leaves it.

        UsageError where it leaves the folder and may not.
        """
        if is_url(row.path):
            return row.path, plain_path(row.path)
        whole = os.path.normpath(self._inside + row.path if row.path[0] != "/" else row.path)
        if whole.startswith(self._inside):
            relative = whole[len(self._inside) :]
            return os.path.join(self._path, relative), relative
        if not self._outside:
            raise UsageError(
                f"{row.place}: {printable(row.path)} lies outside the folder of the manifest, expected a path below "
                f"{printable(self._path or '.')}; --outside allows others"
            )
        path = whole if row.path[0] == "/" else os.path.normpath(os.path.join(self._path, row.path))
        return path, plain_path(row.path)
