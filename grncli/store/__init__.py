"""Bit stores: Zarr v3 directories of packed bits, written in parts by one process each and read as one."""

from grncli.store.fingerprint import Fingerprint
from grncli.store.layout import Grid
from grncli.store.reader import BitStore, GridView, PartSummary, Sample, open_store
from grncli.store.verify import verify_store
from grncli.store.writer import PartWriter, open_part

__all__ = [
    "BitStore",
    "Fingerprint",
    "Grid",
    "GridView",
    "PartSummary",
    "PartWriter",
    "Sample",
    "open_part",
    "open_store",
    "verify_store",
]
