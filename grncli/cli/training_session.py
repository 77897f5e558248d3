"""What the training commands do alike: who of several processes speaks, the number format, progress, the summary."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from grncli.cli.console import Progress, launched, make_stop, print_json, say
from grncli.runtime.errors import UsageError
from grncli.runtime.launch import parent_watch

if TYPE_CHECKING:
    import torch

    from grncli.runtime.processes import Processes
    from grncli.runtime.stopping import Stop
    from grncli.training.loop import Report


@dataclass
class Session:
    """One process of a training command; only the first speaks."""

    device: "torch.device"
    processes: "Processes"
    stop: "Stop"
    progress: Progress
    steps: int = 0  # in all, once the recipe is read
    last: dict[str, float] = field(default_factory=dict)
    note: str = ""

    def step(self, done: int) -> None:
        """Show how many steps are done, beside the last line of the log."""
        if self.processes.leads:
            self.progress(done, self.steps, self.note)

    def report(self, line: "Report") -> None:
        """Take in a line of the log."""
        self.last.update(line.numbers, step=line.step)
        if "loss" in line.numbers:
            names = ("loss", "accuracy")
            shown = [f"{k} {v:.4g}" for k, v in line.numbers.items() if k in names or k.endswith("psnr")]
            self.note = ", ".join(shown)
            self.step(line.step)

    def check_alike(self, *texts: object) -> None:
        """Raise UsageError unless all processes were given the same texts: they train one network."""
        if not self.processes.alike(repr(list(map(str, texts))), self.device):
            raise UsageError(
                f"the {self.processes.count} processes were started with different recipes, data or --out, and train "
                "one network together; give all the same, or set RANK=0 and WORLD_SIZE=1 to train one each"
            )

    def talk(self, text: str) -> None:
        """One line on standard error."""
        if self.processes.leads:
            self.progress.say(text)

    def conclude(self, out: Path, added: int, *, json: bool) -> None:
        """Say what came of it."""
        self.progress.close()
        if not self.processes.leads:
            return
        if json:
            print_json(self.last)
        done = f"trained to step {self.steps}; its log is {out / 'metrics.jsonl'}"
        say(f"{out}: {done if added else f'is already trained to step {self.steps}; nothing to do'}")


@contextmanager
def training_session(name: str, device: str, max_time: str | None) -> Iterator[Session]:
    """Meet the other processes that were started together, if any, and listen to signals for the time of a block."""
    launch = launched()
    with make_stop(max_time, parent=parent_watch(launch)).listening() as stop, Progress(name, "steps") as progress:
        from grncli.runtime.devices import pick_device
        from grncli.runtime.processes import joined

        chosen = pick_device(device, launch.local_rank)
        with joined(launch, chosen, stop) as processes:
            yield Session(chosen, processes, stop, progress)


def with_dtype(overrides: Sequence[str], dtype: str | None) -> list[str]:
    """Overrides of a recipe with ``--dtype X``, which is short for ``training.dtype=X``.

    Raises
    ------
    UsageError
        If it is no number format, or another one than an override asks for.
    """
    if dtype is None:
        return list(overrides)
    from grncli.runtime.devices import DTYPES

    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: expected auto, {' or '.join(DTYPES)}")
    others = [text for text in overrides if text.startswith("training.dtype=") and text != f"training.dtype={dtype}"]
    if others:
        raise UsageError(f"--dtype {dtype} and {others[-1]} contradict each other, expected one of the two")
    return [*overrides, f"training.dtype={dtype}"]
