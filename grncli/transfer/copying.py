"""``grn copy``: a store or a run directory, from a folder or URL to another one."""

from dataclasses import dataclass
from pathlib import Path

from grncli.runtime.errors import GrnError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import UrlPath, located
from grncli.store.root_kinds import names_store
from grncli.store.rows.byte_source import root_attributes
from grncli.transfer.destinations import destination_at
from grncli.transfer.run_copying import FIRST, copy_run
from grncli.transfer.store_copying import copy_store


@dataclass(frozen=True)
class CopySummary:
    """What a copy did.

    Attributes
    ----------
    kind : ``store`` or ``run``, which may be an exported one
    copied, copied_bytes : files that were missing or differed
    present : files that were there
    """

    kind: str
    copied: int
    copied_bytes: int
    present: int


def copy(src: Path, dst: Path, *, overwrite: bool = False, monitor: Monitor | None = None) -> CopySummary:
    """Copy a bit store, a features store or a run directory; only what is missing at ``dst`` or differs.

    Parameters
    ----------
    src, dst : folders, or URLs that fsspec knows
    overwrite : replace what ``dst`` has that was made otherwise

    Raises
    ------
    Stopped
        If the monitor's stop asks for it; the same call resumes.
    GrnError
        If ``src`` is neither, ``dst`` holds something else, or a server cannot be read or written.
    """
    src, dst, monitor = located(src), located(dst), monitor or Monitor()
    if src == dst or (src.exists() and dst.exists() and src.samefile(dst)):
        raise UsageError(f"{dst}: is SRC and DST, expected two places")
    if isinstance(dst, UrlPath) and str(dst).startswith(("http://", "https://")):
        raise UsageError(f"{dst}: is a web server, which is only read; copy to a bucket, such as s3://, or a folder")
    if not isinstance(src, UrlPath) and not src.is_dir():
        raise GrnError(f"{src}: {'is a file' if src.exists() else 'is not there'}, expected a store or a run directory")
    if not isinstance(dst, UrlPath) and src.resolve() in dst.resolve().parents:
        raise UsageError(f"{dst}: lies in SRC, expected a place beside it")
    source, destination = destination_at(src), destination_at(dst)
    attributes = root_attributes(source.files)
    if attributes is not None and names_store(attributes):
        kind, sender = "store", copy_store(source.files, destination, overwrite=overwrite, monitor=monitor)
    elif any(source.files.size(name) is not None for name in FIRST):
        kind, sender = "run", copy_run(source, destination, overwrite=overwrite, monitor=monitor)
    else:
        raise GrnError(f"{src}: is no store (zarr.json) and no run directory ({FIRST[0]}); expected one of them")
    return CopySummary(kind, sender.sent, sender.sent_bytes, sender.present)
