"""What the training commands do alike: who of several processes speaks, progress, and the last words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from grncli.cli.console import Progress, make_stop, print_json, process_ranks, say

if TYPE_CHECKING:
    import torch

    from grncli.stopping import Stop
    from grncli.training.loop import Report
    from grncli.training.processes import Processes


@dataclass
class Session:
    """One process of a training command; only the first speaks."""

    device: "torch.device"
    dtype: "torch.dtype"
    processes: "Processes"
    stop: "Stop"
    progress: Progress
    steps: int = 0  # in all, once the recipe is read
    last: dict[str, float] = field(default_factory=dict)

    def report(self, line: "Report") -> None:
        """Show a line of the log."""
        self.last.update(line.numbers, step=line.step)
        if self.processes.leads and "loss" in line.numbers:
            names = ("loss", "accuracy")
            shown = [f"{k} {v:.4g}" for k, v in line.numbers.items() if k in names or k.endswith("psnr")]
            self.progress(line.step, self.steps, ", ".join(shown))

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
        done = f"trained to step {self.steps}; what it learned is in {out / 'metrics.jsonl'}"
        say(f"{out}: {done if added else f'is already trained to step {self.steps}; nothing to do'}")


@contextmanager
def training_session(name: str, device: str, dtype: str, max_time: str | None) -> Iterator[Session]:
    """Meet the other processes that ``torchrun`` started, if any, and listen to signals for the time of a block."""
    rank, count, local = process_ranks(os.environ)
    with make_stop(max_time).listening() as stop, Progress(name, "steps") as progress:
        from grncli.devices import pick_device, pick_dtype
        from grncli.training.processes import joined

        chosen = pick_device(device, local)
        with joined(rank, count, chosen) as processes:
            yield Session(chosen, pick_dtype(dtype, chosen), processes, stop, progress)
