"""What the training commands do alike: the same recipe in all processes, the number format, the summary."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grncli.cli.console import print_json, say
from grncli.cli.session import Session
from grncli.runtime.errors import UsageError


def check_alike(session: Session, *texts: object) -> None:
    """Raise UsageError unless all processes were given the same texts: they train one network."""
    if not session.processes.alike(repr(list(map(str, texts))), session.device):
        raise UsageError(
            f"the {session.processes.count} processes were started with different recipes, data or --out, and train "
            "one network together; give all the same, or set RANK=0 and WORLD_SIZE=1 to train one each"
        )


def conclude(session: Session, out: Path, steps: int, added: int, last: Mapping[str, float], *, json: bool) -> None:
    """Say what was trained, and print the ``last`` numbers of the log as JSON."""
    session.progress.close()
    if not session.processes.is_main:
        return
    if json:
        print_json(last)
    done = f"trained to step {steps}; its log is {out / 'metrics.jsonl'}"
    say(f"{out}: {done if added else f'is already trained to step {steps}; nothing to do'}")


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
