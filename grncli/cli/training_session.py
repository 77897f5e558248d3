"""What the training commands do alike: the summary."""

from collections.abc import Mapping
from pathlib import Path

from grncli.cli.console import print_json, say
from grncli.cli.session import Session


def conclude(session: Session, out: Path, steps: int, added: int, last: Mapping[str, float], *, json: bool) -> None:
    """Say what was trained, and print the ``last`` numbers of the log as JSON."""
    session.progress.close()
    if not session.processes.is_main:
        return
    if json:
        print_json(last)
    done = f"trained to step {steps}; its log is {out / 'metrics.jsonl'}"
    say(f"{out}: {done if added else f'is already trained to step {steps}; nothing to do'}")
