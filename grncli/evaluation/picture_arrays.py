"""Pictures as one array in an .npz file: the sample batches of guided-diffusion's evaluator and its successors."""

import io
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from grncli.evaluation.measuring import Compute, Measured, OneSize, PictureReading, Pictures, R, measured_by_all
from grncli.metrics.statistics_files import npz_members
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import SINGLE_PROCESS

ARRAY = "arr_0"  # uint8 [N, H, W, 3]
ARRAY_BATCH = 64
MAX_ARRAY_SIDE = 16384


def holds_pictures(path: Path) -> bool:
    """Whether a file is an .npz with pictures in it, as the reference batches of guided-diffusion are."""
    return ARRAY in npz_members(path)


class ArrayPictures(Pictures):
    """The array ``arr_0`` of an .npz file, read a batch at a time."""

    def __init__(self, path: Path, reading: PictureReading) -> None:
        self.src = str(path)
        self._path = path
        reading.require_plain(path, "pictures of an .npz file are taken as they are")
        _, rows, columns = reading.stride
        if self._shape[1] % rows or self._shape[2] % columns:
            raise UsageError(
                f"{path} has pictures of {self._shape[1]}x{self._shape[2]} pixels, expected multiples of the "
                f"tokenizer's {rows}x{columns}; give files, which are cut, or another tokenizer"
            )
        self._batch = reading.batch or ARRAY_BATCH
        self.selection = reading.selection
        self.total = self._shape[0]
        self.places = self.selection.places(map(str, range(self.total)), self.total)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        with _open_array(self._path) as (shape, _):
            return shape

    def measure(
        self, compute: Compute[R], *, share: tuple[int, int] = (0, 1), monitor: Monitor | None = None
    ) -> Iterator[Measured[R]]:
        """See `Pictures.measure`."""
        (rank, count), monitor = share, monitor or Monitor()
        _, height, width, colours = self._shape
        size = height * width * colours
        chosen = np.asarray(self.places)
        with _open_array(self._path) as (_, stream):
            for number, start in enumerate(range(0, int(chosen[-1]) + 1, self._batch)):
                rows = min(self._batch, int(chosen[-1]) + 1 - start)
                data = _read_exactly(stream, rows * size, f"{self._path}: {ARRAY} ends or is damaged after {start}")
                first, last = np.searchsorted(chosen, (start, start + rows)).tolist()
                if number % count != rank or first == last:
                    continue
                frames = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(rows, 1, height, width, colours)
                if last - first < rows:
                    frames = frames[chosen[first:last] - start]
                for place, result in enumerate(compute(frames), start=first):
                    yield Measured(place, f"{self.src}[{chosen[place]}]", (1, height, width), result)
                if monitor.stop_reason:
                    return

    def about(self) -> dict[str, Any]:
        """See `Pictures.about`."""
        return {**super().about(), "size": "native", **self.selection.about()}


def write_pictures(path: Path, pictures: Pictures, *, monitor: Monitor | None = None) -> tuple[int, ...]:
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
        If ``monitor`` asked for it.
    """
    monitor, sizes, count = monitor or Monitor(), OneSize(wanted=True), 0
    with tempfile.TemporaryFile(dir=path.absolute().parent) as rows, whole_file(path) as temporary:
        pixels = pictures.measure(_pixels, monitor=monitor)
        for measured in measured_by_all(pixels, len(pictures), sizes, SINGLE_PROCESS, monitor):
            if measured.shape[0] > 1:
                raise UsageError(f"{measured.name} is a clip of {measured.shape[0]} frames; expected single pictures")
            rows.write(measured.result)
            count += 1
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
    layout = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, layout)
    return buffer.getvalue()


@contextmanager
def _open_array(path: Path) -> Iterator[tuple[tuple[int, ...], IO[bytes]]]:
    """Shape and byte stream of ``arr_0``; the array itself may be larger than memory."""
    expected = f"expected uint8 pictures [N, H, W, 3] as {ARRAY}"
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            stream = stack.enter_context(archive.open(f"{ARRAY}.npy"))
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
        except Exception as error:  # zipfile, zlib and numpy each have their own for a damaged file
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise MediaError(f"{path}: cannot be read ({reason}); {expected}") from None
        sound = not fortran and dtype == np.uint8 and len(shape) == 4 and shape[3] == 3
        if not sound or min(shape) < 1 or max(shape[1:3]) > MAX_ARRAY_SIDE:
            raise MediaError(f"{path}: {ARRAY} is {dtype} {list(shape)}; {expected}")
        yield shape, stream


def _read_exactly(stream: IO[bytes], size: int, problem: str) -> bytes:
    try:
        data = stream.read(size)
    except Exception as error:  # see `_open_array`
        raise MediaError(f"{problem} pictures ({' '.join(str(error).split())[:120]}); get the file again") from None
    if len(data) < size:
        raise MediaError(f"{problem} pictures; get the file again")
    return data
