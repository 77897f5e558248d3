"""Options that the commands of ``grn eval`` share, and the session they run in."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from grncli.cli.console import Progress, launched, make_stop, say
from grncli.runtime.errors import UsageError
from grncli.runtime.launch import parent_watch

if TYPE_CHECKING:
    from grncli.runtime.processes import Processes
    from grncli.runtime.stopping import Stop

Size = Annotated[
    str | None,
    Option(metavar="256|HxW|native", help="Bring pictures to a size; native takes them as they are, of any size."),
]
Frames = Annotated[int | None, Option(metavar="N", min=1, help="Frames of a window of a clip; default: whole clips.")]
Fps = Annotated[float | None, Option(metavar="F", help="Resample clips in time.")]
Limit = Annotated[int | None, Option(metavar="N", min=1, help="Only the first N sources of each side.")]
Sample = Annotated[
    int | None,
    Option(metavar="N", min=1, help="Only N sources of each side, drawn by a hash of their names."),
]
Batch = Annotated[int | None, Option(metavar="B", min=1, help="Pictures at once in reading; default: by their size.")]
Workers = Annotated[int | None, Option(metavar="W", min=0, help="Decoding processes.")]
Device = Annotated[str, Option(metavar="auto|cpu|cuda|mps", help="Where to compute.")]
Tokenizer = Annotated[str | None, Option(metavar="RUN", help="Tokenizer that decodes bit stores.")]
Strict = Annotated[bool, Option("--strict", help="End at the first picture that cannot be read.")]
Metrics = Annotated[str | None, Option(metavar="A,B,...", help="What to measure; default: all that can be.")]
Features = Annotated[
    str | None,
    Option(
        metavar="inception|i3d|FILE|RUN",
        help="Feature network: a name, a weights or TorchScript file, or a tokenizer's run.",
    ),
]
Cache = Annotated[Path | None, Option(metavar="DIR", help="Where downloaded weights lie; default: ~/.cache/grn.")]
Download = Annotated[bool, Option("--download", help="Fetch published weights that are missing, once.")]
Html = Annotated[Path | None, Option(metavar="FILE.html", help="Write one page with all of it.")]
MaxTime = Annotated[str | None, Option(metavar="3h50m", help="Stop and exit with 75 after this time.")]
Json = Annotated[bool, Option("--json", help="Print a JSON document.")]


@dataclass
class Session:
    """One process of an evaluation; only the first speaks."""

    device: str
    processes: "Processes"
    stop: "Stop"
    progress: Progress

    def common(self) -> dict[str, Any]:
        """What every stage of evaluation takes."""
        return {"processes": self.processes, "stop": self.stop, "report": self.report, "say": self.talk}

    def report(self, done: int, total: int, note: str) -> None:
        """Show progress."""
        if self.processes.leads:
            self.progress(min(done, total), total, note)

    def talk(self, text: str) -> None:
        """One line on standard error. Each process meets its own unreadable pictures."""
        self.progress.say(text)


@contextmanager
def session(name: str, unit: str, device: str, max_time: str | None) -> Iterator[Session]:
    """Meet the other processes that were started together, if any, and listen to signals for the time of a block."""
    launch = launched()
    stopping = make_stop(max_time, parent=parent_watch(launch))
    with stopping.listening() as stop, Progress(f"eval {name}", unit) as progress:
        import torch

        from grncli.runtime.devices import pick_device
        from grncli.runtime.processes import joined

        # Sums meet on the CPU, where they are float64, wherever the networks run.
        with joined(launch, torch.device("cpu"), stop) as processes:
            yield Session(str(pick_device(device, launch.local_rank)), processes, stop, progress)


def cache_folder(given: Path | None) -> Path:
    """Where weights lie that were downloaded."""
    from grncli.runs.weight_files import default_cache

    return given or default_cache()


def parse_metrics(text: str | None) -> tuple[str, ...] | None:
    """Names from a comma-separated list; None for None."""
    if text is None:
        return None
    names = tuple(name.strip().lower() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError(f"--metrics {text!r}: expected names, such as psnr,ssim")
    return names


def warn(sentences: list[str]) -> None:
    """Each on standard error."""
    for sentence in sentences:
        say(f"warning: {sentence}")
