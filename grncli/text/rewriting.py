"""``--rewrite CMD``: prompts through a program of the user's, one JSON object a line to it and from it."""

import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from grncli.runtime.arriving_lines import arriving_lines
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import brief, parse_json
from grncli.runtime.jsonlines import encode_line
from grncli.runtime.monitor import Monitor
from grncli.runtime.system import kill_group

SILENCE_SECONDS = 600.0  # a language model may take minutes to load
END_SECONDS = 60.0  # for the program to end once it has answered everything


def rewrite(command: str, prompts: Sequence[str], monitor: Monitor | None = None) -> list[str]:
    """What a program makes of each prompt.

    It is started once, without a shell, and reads a line ``{"number": n, "prompt": ...}`` for each prompt until its
    standard input ends. It writes as many such lines, in any order, each number once. Its standard error is the user's.

    Parameters
    ----------
    command : as a shell takes it, but without pipes, variables and other work of a shell
    monitor : asked for a stop meanwhile

    Returns
    -------
    list of str
        In the order of ``prompts``.

    Raises
    ------
    UsageError
        If the program cannot be started, fails, stays silent for `SILENCE_SECONDS`, or answers a number not at all,
        twice, or with anything but a prompt.
    Unfinished
        If ``monitor`` asked for a stop.
    """
    monitor = monitor or Monitor()
    asked = b"".join(encode_line({"number": n, "prompt": prompt}) for n, prompt in enumerate(prompts))
    rewritten: dict[int, str] = {}
    process = _start(command)
    try:
        feeder = threading.Thread(target=_feed, args=(process, asked), daemon=True)
        feeder.start()
        for count, line in enumerate(_lines(command, process, monitor), start=1):
            number, prompt = _read_answer(command, line, count, len(prompts))
            if number in rewritten:
                raise UsageError(f"--rewrite {command}: answered prompt {number} twice, expected each number once")
            rewritten[number] = prompt
            monitor.progress(len(rewritten), len(prompts), "prompts rewritten")
        _require_success(command, process)
    finally:
        _end(process)
    missing = next((n for n in range(len(prompts)) if n not in rewritten), None)
    if missing is not None:
        raise UsageError(
            f"--rewrite {command}: gave no answer for prompt {missing}, and {len(rewritten)} of {len(prompts)} in all; "
            "expected a line for each"
        )
    return [rewritten[number] for number in range(len(prompts))]


def _start(command: str) -> "subprocess.Popen[bytes]":
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"--rewrite {command}: {error}, expected a command with its arguments") from None
    if not words:
        raise UsageError("--rewrite: is empty, expected a command with its arguments")
    try:
        # A group of its own: Ctrl-C reaches us first, and what the program has started ends with it.
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise UsageError(
            f"--rewrite {command}: cannot be started ({error.strerror}), expected a program and its arguments"
        ) from None


def _feed(process: "subprocess.Popen[bytes]", asked: bytes) -> None:
    """Write everything from a thread: a program that answers at once would wait for us to read."""
    assert process.stdin is not None
    with suppress(OSError), process.stdin:  # one that ends early is noticed by its answers
        process.stdin.write(asked)


def _lines(command: str, process: "subprocess.Popen[bytes]", monitor: Monitor) -> Iterator[bytes]:
    """Lines of the program's output as they come."""

    def wait(silent: float) -> None:
        monitor.require_time("while prompts were rewritten")
        if silent > SILENCE_SECONDS:
            raise UsageError(
                f"--rewrite {command}: wrote nothing for {SILENCE_SECONDS:.0f} s, expected a line for each prompt; it "
                "may hold its output back, or wait for more than the end of its input"
            )

    assert process.stdout is not None
    try:
        yield from arriving_lines(process.stdout.fileno(), wait)
    except ValueError as error:
        raise UsageError(f"--rewrite {command}: of its output {error}, expected a line for each prompt") from None


def _read_answer(command: str, line: bytes, count: int, prompts: int) -> tuple[int, str]:
    """Number and prompt of one line of the program."""
    place, remedy = f"--rewrite {command}: line {count} of its output", 'expected {"number": n, "prompt": ...}'
    answer = parse_json(line, place, error=UsageError, remedy=remedy)
    if not isinstance(answer, dict) or type(answer.get("number")) is not int:
        raise UsageError(f"{place} is {brief(answer)}, {remedy}")
    number, prompt = answer["number"], answer.get("prompt")
    if not 0 <= number < prompts:
        raise UsageError(f"{place} answers prompt {number}, expected 0 to {prompts - 1}")
    if not isinstance(prompt, str) or not prompt.strip():
        raise UsageError(f"{place} answers prompt {number} with {brief(prompt)}, expected a text")
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{place} answers prompt {number} with broken Unicode, expected whole characters") from None
    return number, prompt.strip()


def _require_success(command: str, process: "subprocess.Popen[bytes]") -> None:
    try:
        code = process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"--rewrite {command}: closed its output and runs on after {END_SECONDS:.0f} s, expected it to end"
        ) from None
    if code:
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
        raise UsageError(f"--rewrite {command}: {how}; run it by hand on one line to see why")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing of the program stays behind, however the work ended."""
    with suppress(ProcessLookupError, PermissionError):
        kill_group(process.pid)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
