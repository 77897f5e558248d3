"""The bit store as a schema: ``bits``, a label and numbers for each sample, in a group per latent grid ``TxHxW``."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from grncli.store.fingerprint import Fingerprint
from grncli.store.root_kinds import BITS_ATTRIBUTE
from grncli.store.rows import schema
from grncli.store.rows.schema import FLAG, NUMBER, TEXT, TEXT_OR_NULL, WHOLE, ArrayLayout, Schema

BITS = "bits"
LABEL = "label"

Grid = tuple[int, int, int]

_GRID_NAME = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)x([1-9][0-9]*)")


def grid_name(grid: Grid) -> str:
    """Directory of a latent grid, ``TxHxW``."""
    return "x".join(str(n) for n in grid)


def parse_grid(name: str) -> Grid | None:
    """Latent grid of a directory name, None when it is not one."""
    match = _GRID_NAME.fullmatch(name)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def grid_of(name: str) -> Grid:
    """Latent grid of the name of a group."""
    grid = parse_grid(name)
    assert grid is not None
    return grid


def bytes_per_round(channels: int) -> int:
    """Bytes that one round's plane of one token takes."""
    return -(-channels // 8)


@dataclass(frozen=True)
class BitSchema(Schema):
    """``bits`` uint8 [sample, time, height, width, round, byte], ``label`` int32 [sample] (-1 = none), and columns."""

    fingerprint: Fingerprint

    noun = "bit store"
    attribute = BITS_ATTRIBUTE
    array_names = (BITS, LABEL)
    group_field = "grid"
    line_fields: ClassVar = {
        **dict.fromkeys(("grid", "key", "source", "prompt"), TEXT),
        **dict.fromkeys(("class", "label", "error"), TEXT_OR_NULL),
        **dict.fromkeys(("row", "bytes", "clip", "frames", "position", "prompt_number"), WHOLE),
        **dict.fromkeys(("start", "fps"), NUMBER),
        "flip": FLAG,
    }

    @property
    def parts(self) -> int:
        """Number of parts the sources are divided into."""
        return self.fingerprint.parts

    def attributes(self) -> dict[str, Any]:
        """The fingerprint."""
        return self.fingerprint.to_attributes()

    def require_same(self, attributes: Mapping[str, Any], where: Path, remedy: str) -> None:
        """StoreMismatch, unless the store at ``where`` has the same fingerprint and parts."""
        Fingerprint.from_attributes(attributes, where).require(self.fingerprint, where, remedy, parts=True)

    def group_order(self, name: str) -> Grid | None:
        """The grid."""
        return parse_grid(name)

    def arrays(self, group: str) -> list[ArrayLayout]:
        """Bits and label."""
        time, height, width = grid_of(group)
        axes = {"time": time, "height": height, "width": width}
        planes = {"round": self.fingerprint.rounds, "byte": bytes_per_round(self.fingerprint.channels)}
        return [schema.array_layout(BITS, np.uint8, axes | planes), schema.number_layout(LABEL, np.int32)]

    def problems_in(self, layout: ArrayLayout, rows: NDArray[Any], path: Path | str) -> Iterator[str]:
        """Labels that are no index into the class names; without names every label is valid."""
        classes = len(self.fingerprint.labels)
        most = classes - 1 if classes else np.iinfo(np.int32).max
        if layout.name == LABEL and not -1 <= rows.min() <= rows.max() <= most:
            yield f"{path} has labels {rows.min()} to {rows.max()}, expected -1 to {most}; make the store again."
