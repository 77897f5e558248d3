"""Lists of prompts in files, as benchmarks and people write them."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from grncli.runtime.errors import UsageError

MAX_BYTES = 64 << 20
STANDARD_INPUT = Path("-")
KEYS = ("prompt", "prompt_en")  # GenEval's, VBench's
SHOWN_CHARACTERS = 80

_KINDS = "GenEval's evaluation_metadata.jsonl, VBench's full-info JSON, or one prompt a line"


@dataclass(frozen=True)
class Prompt:
    """One prompt; ``metadata`` is its entry in the file, empty for plain text, and ``place`` where that stands."""

    text: str
    metadata: Mapping[str, Any]
    place: str = field(default="", compare=False)


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, or of standard input where ``path`` is ``-``, in their order.

    A file that starts with ``[`` is read as a JSON array (VBench), one that starts with ``{`` as JSON lines (GenEval),
    any other as plain text, one prompt a line; blank lines do not count.

    Raises
    ------
    UsageError
        If the file cannot be read, is no such list, or has no prompt.
    """
    name = "standard input" if path == STANDARD_INPUT else str(path)
    text = _read(path, name)
    start = text.lstrip()[:1]
    prompts = list(_from_array(name, text) if start == "[" else _from_lines(name, text, json_lines=start == "{"))
    if not prompts:
        raise UsageError(f"{name}: has no prompt, expected {_KINDS}")
    return prompts


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Hash of the texts and their order."""
    return sha256(json.dumps([prompt.text for prompt in prompts]).encode()).hexdigest()


def shortened(text: str) -> str:
    """A prompt as messages quote it."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _read(path: Path, name: str) -> str:
    if path == STANDARD_INPUT and sys.stdin is None:
        raise UsageError(f"{name}: is closed, expected {_KINDS}")
    try:
        with nullcontext(sys.stdin.buffer) if path == STANDARD_INPUT else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror}), expected {_KINDS}") from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{name}: is larger than {MAX_BYTES >> 20} MiB, expected a list of prompts")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line}: is not UTF-8 text, expected {_KINDS}") from None


def _from_lines(name: str, text: str, *, json_lines: bool) -> Iterator[Prompt]:
    # Not splitlines, which also cuts at separators that may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        place, stripped = f"{name}:{number}", line.strip()
        if stripped and json_lines:
            yield _from_entry(_parse(stripped, place), place)
        elif stripped:
            yield Prompt(stripped, {}, place)


def _from_array(name: str, text: str) -> Iterator[Prompt]:
    for number, entry in enumerate(_parse(text, name), start=1):
        yield _from_entry(entry, f"{name}: entry {number}")


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: is not valid JSON ({error}), expected {_KINDS}") from None


def _from_entry(entry: Any, place: str) -> Prompt:
    text = next((entry[key] for key in KEYS if key in entry), None) if isinstance(entry, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise UsageError(f"{place}: has no prompt, expected a JSON object with {' or '.join(KEYS)}")
    try:
        text.encode()
    except UnicodeEncodeError:  # an escaped half of a surrogate pair
        raise UsageError(f"{place}: the prompt is not valid Unicode, expected whole characters") from None
    return Prompt(text, entry, place)
