"""Bit stores: Zarr v3 directories of packed bits, written in parts by one process each and read as one.

``rows/`` is the row store, which knows no particular rows; ``bits`` is the schema that makes it a bit store, with
``bit_writer`` and ``bit_store`` as its doors. ``captions`` holds what its sources show.
"""

from grncli.store.bit_store import BitStore, GridView, Sample, open_store, verify_store
from grncli.store.bit_writer import PartWriter, add_classes, is_interrupted, open_part
from grncli.store.bits import Grid, grid_name, parse_grid
from grncli.store.fingerprint import Fingerprint
from grncli.store.rows.claiming import store_lock
from grncli.store.rows.row_reader import PartSummary
from grncli.store.rows.schema import MAX_PARTS, METADATA, part_name

__all__ = [
    "MAX_PARTS",
    "METADATA",
    "BitStore",
    "Fingerprint",
    "Grid",
    "GridView",
    "PartSummary",
    "PartWriter",
    "Sample",
    "add_classes",
    "grid_name",
    "is_interrupted",
    "open_part",
    "open_store",
    "parse_grid",
    "part_name",
    "store_lock",
    "verify_store",
]
