"""Pictures as one array in an .npz file, the sample batch that guided-diffusion's evaluator and its successors read."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

from grncli.evaluation.picture_sources import ARRAY, Pictures
from grncli.evaluation.statistics import OneSize
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.stopping import Stop, Unfinished


def write_pictures(
    path: Path,
    pictures: Pictures,
    *,
    stop: Stop | None = None,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[int, ...]:
    """Write ``arr_0``, uint8 ``[N, H, W, 3]``, whole or not at all, in a pass that keeps one batch in memory.

    Returns
    -------
    shape of the array

    Raises
    ------
    UsageError
        For clips, and for pictures of several sizes.
    MediaError
        If none can be read.
    Unfinished
        If ``stop`` asked for it.
    """
    stop, sizes, count = stop or Stop(), OneSize(wanted=True), 0
    with tempfile.TemporaryFile(dir=path.absolute().parent) as rows, whole_file(path) as temporary:
        for measured in pictures.measure(_pixels, stop=stop, warn=warn):
            sizes.check(measured)
            if measured.shape[0] > 1:
                raise UsageError(f"{measured.name} is a clip of {measured.shape[0]} frames; expected single pictures")
            rows.write(measured.result)
            count += 1
            report(count, len(pictures), "")
        if stop.reason:
            raise Unfinished(f"{stop.reason}: stopped after {count} of {len(pictures)} pictures")
        if sizes.size is None:
            raise MediaError(f"{pictures.src}: none of its pictures could be read")
        shape = (count, *sizes.size, 3)
        rows.seek(0)
        with zipfile.ZipFile(temporary, "w") as archive, archive.open(f"{ARRAY}.npy", "w", force_zip64=True) as member:
            member.write(_header(shape))
            while block := rows.read(1 << 22):
                member.write(block)
    return shape


def _pixels(frames: Tensor) -> list[bytes]:
    return [sample.numpy().tobytes() for sample in frames]


def _header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, described)
    return buffer.getvalue()
