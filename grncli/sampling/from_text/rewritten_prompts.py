"""Prompts as the user's rewriter answered them, kept beside the output: a resumed run samples the same prompts."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from grncli.runtime.checking import Count, Text, check
from grncli.runtime.errors import UsageError
from grncli.runtime.files import replace_file
from grncli.runtime.jsonlines import encode_line, read_lines
from grncli.runtime.lock import PathLock
from grncli.runtime.monitor import Monitor
from grncli.text.rewriting import rewrite

REMEDY = "remove the file to rewrite the prompts again"
_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class _Answer:
    """A line of the file."""

    number: Count
    prompt: Text
    rewritten_from: Text
    command: Text


def rewritten_file(out: Path) -> Path:
    """Where the prompts of an output are kept: beside it, as it may be a store."""
    out = out if out.name else out.absolute()
    return out.with_name(f"{out.name}.prompts.jsonl")


def rewritten_prompts(
    command: str, prompts: Sequence[str], file: Path, *, replaces: bool, monitor: Monitor
) -> list[str]:
    """What the rewriter makes of each prompt, from ``file`` where it has answered before.

    Parameters
    ----------
    file : written before this returns; parts that start at the same time take the answers of the first
    replaces : whether answers to other prompts, or of another command, may be replaced

    Raises
    ------
    UsageError
        If the rewriter fails, or the file holds other answers and may not be replaced.
    Unfinished
        If ``monitor`` asked for it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = PathLock(file.with_name(f".{file.name}.lock"))
    while not lock.try_acquire():
        monitor.require_time("before prompts were rewritten")
        time.sleep(_LOOK_SECONDS)
    try:
        earlier = _read(file)
        if [(line.command, line.rewritten_from) for line in earlier] == [(command, prompt) for prompt in prompts]:
            monitor.say(f"{file}: has the prompts as they were rewritten before; {REMEDY}")
            return [line.prompt for line in earlier]
        if earlier and not replaces:
            raise UsageError(
                f"{file}: has answers to other prompts or of another --rewrite than this command's; give the same, "
                "another OUT, or --overwrite"
            )
        answers = rewrite(command, prompts, monitor)
        lines = [_Answer(n, new, old, command) for n, (old, new) in enumerate(zip(prompts, answers, strict=True))]
        replace_file(file, b"".join(encode_line(asdict(line)) for line in lines))
        return answers
    finally:
        lock.release()


def _read(file: Path) -> list[_Answer]:
    """The answers that are kept, none where there is no file."""
    try:
        lines = read_lines(file, error=UsageError, remedy=REMEDY)
        return [check(line, _Answer, place, error=UsageError, remedy=REMEDY) for place, line in lines]
    except FileNotFoundError:
        return []
