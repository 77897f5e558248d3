"""Pictures of any origin, measured batch by batch, by one process or several."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from torch import Tensor

from grncli.media.selection import Selection
from grncli.runs.tokenizers import LoadedTokenizer
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import Processes
from grncli.runtime.stopping import Unfinished

R = TypeVar("R")
Compute = Callable[[Tensor], Sequence[R]]
"""Gets uint8 ``[B, T, H, W, 3]`` and gives B results."""


@dataclass(frozen=True, kw_only=True)
class PictureReading:
    """How pictures are read."""

    size: str | None = None  # as for grn tokenize; None takes them as they are and expects one size
    budget: str | None = None  # instead of a size, see grn tokenize
    frames: int | None = None  # of a clip; None takes each whole
    fps: float | None = None
    limit: int | None = None
    sample: int | None = None  # so many drawn by their names; instead of a limit
    batch: int | None = None
    workers: int = 1
    tokenizer: str | LoadedTokenizer | None = None  # run that decodes stores, or what was opened of it
    device: str = "cpu"
    strict: bool = False
    stride: tuple[int, int, int] = (1, 1, 1)  # of the tokenizer that media are to go through: cut to whole tokens

    def __post_init__(self) -> None:
        Selection(self.limit, self.sample)  # refuses contradictory options

    @property
    def selection(self) -> Selection:
        """Which pictures are measured."""
        return Selection(self.limit, self.sample)

    @property
    def opened(self) -> LoadedTokenizer | None:
        """The tokenizer, where it has been opened already."""
        return None if isinstance(self.tokenizer, str) else self.tokenizer

    def require_plain(self, path: Path, reason: str) -> None:
        """UsageError where options for files are set and ``path`` holds samples; ``reason`` is why --size is none."""
        if self.size not in (None, "native"):
            raise UsageError(f"--size {self.size}: {reason}")
        if self.budget is not None:
            raise UsageError(f"--budget {self.budget}: {reason}")
        for name, value in (("--frames", self.frames), ("--fps", self.fps)):
            if value is not None:
                raise UsageError(
                    f"{name} {value}: is for clips in files, and {path} holds samples; leave the option out"
                )


@dataclass(frozen=True)
class Measured(Generic[R]):
    """What was measured of one picture or clip."""

    place: int  # in the order of its source
    name: str
    shape: tuple[int, ...]  # frames, height, width
    result: R
    label: str | None = None  # name of its class


class Pictures(ABC):
    """Pictures and clips of one origin."""

    src: str
    selection: Selection
    places: Sequence[int]  # of the selected sources among all that there are
    total: int  # of all there are
    failed: int = 0  # that could not be read so far

    def __len__(self) -> int:
        """How many sources are selected."""
        return len(self.places)

    def only(self, numbers: Sequence[int]) -> Self:
        """The same with those of the selected sources that have these numbers, ascending; to look at them once more."""
        fewer = copy(self)
        fewer.places = [self.places[number] for number in numbers]
        return fewer

    def prompts(self) -> Sequence[str | None]:
        """The prompt that each selected source was made of, None where none is recorded."""
        return [None] * len(self)

    @abstractmethod
    def measure(
        self, compute: Compute[R], *, share: tuple[int, int] = (0, 1), monitor: Monitor | None = None
    ) -> Iterator[Measured[R]]:
        """What ``compute`` gives for each picture; ends early where ``monitor`` says so.

        Parameters
        ----------
        share : (i, n) measures every n-th source, from the i-th
        monitor : gets a sentence for each source that cannot be read

        Raises
        ------
        MediaError
            For such a source, if reading is strict.
        """

    def about(self) -> dict[str, Any]:
        """Where the pictures are from and how they are read, for the protocol beside a figure."""
        return {"src": self.src}


class OneSize:
    """Refuses pictures of several sizes: a network resizes each in silence, and the figures then mix scales."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.several = False
        self.first: tuple[tuple[int, ...], str] | None = None

    def check(self, shape: Sequence[int], name: str) -> None:
        """Take note of a picture's height and width; UsageError where they differ from the first."""
        size = tuple(shape[-2:])
        if self.first is None:
            self.first = (size, name)
        elif size != self.first[0] and not self._wanted:
            self.several = True
        elif size != self.first[0]:
            raise UsageError(
                f"{self.first[1]} is {show_size(self.first[0])} pixels and {name} {show_size(size)}; "
                "expected one size, give --size 256 (or HxW) to bring them to it, or --size native to take them so"
            )

    def merge(self, processes: Processes) -> None:
        """Compare with the pictures of other processes."""
        for other in processes.gather_json(self.first):
            if other is not None:
                self.check(*other)

    @property
    def size(self) -> list[int] | None:
        """Height and width of the pictures; None for several sizes."""
        return None if self.first is None or self.several else list(self.first[0])


def show_size(size: Sequence[int]) -> str:
    """``32x48``, height first."""
    return "x".join(map(str, size))


def measured_by_all(
    measured: Iterator[Measured[R]], total: int, sizes: OneSize, processes: Processes, monitor: Monitor
) -> Iterator[Measured[R]]:
    """Pass on what was measured, checking sizes and showing progress; all processes end together.

    Parameters
    ----------
    measured : of this process's share of ``total`` sources

    Raises
    ------
    UsageError
        If sizes differ that are expected alike, here or between processes.
    Unfinished
        If ``monitor`` asked for it, in any process.
    """
    done = 0
    for each in measured:
        sizes.check(each.shape, each.name)
        yield each
        done += 1
        monitor.progress(each.place + 1, total, "")
    if processes.count_all(monitor.stop_reason is not None):
        raise Unfinished(f"{monitor.stop_reason or 'another process'}: stopped after {done} of {total} pictures")
    sizes.merge(processes)
