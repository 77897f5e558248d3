"""The prompts of a generator of texts: as the user gives them, as they are rewritten, and as the encoder reads them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from grncli.runs.generator_recipe import Task
from grncli.runtime.errors import UsageError
from grncli.runtime.files import read_plain
from grncli.text.prompts import Prompt, read_prompts, shortened
from grncli.text.templates import final_prompt

MAX_NEGATIVE_BYTES = 1 << 20


@dataclass(frozen=True)
class TextPrompt:
    """A prompt of the list.

    Parameters
    ----------
    text : the user's own
    place : where it stands, for messages
    rewritten : what the user's rewriter made of it
    final : with the task's prefix and suffix, and cleaned: what the encoder reads
    """

    text: str
    place: str = field(default="", compare=False)
    rewritten: str | None = None
    final: str = ""

    def described(self) -> dict[str, Any]:
        """What records say of it."""
        rewritten = {} if self.rewritten is None else {"rewritten": self.rewritten}
        return {"prompt": self.text, **rewritten, "final_prompt": self.final}


def given_prompts(prompt: str | None, prompts: Path | None) -> list[TextPrompt]:
    """Those of ``--prompts`` or ``--prompt``, whichever is given; UsageError where one is empty."""
    if prompts is not None:
        return [_checked(each) for each in read_prompts(prompts)]
    return [] if prompt is None else [_checked(Prompt(prompt, {}, "--prompt"))]


def _checked(prompt: Prompt) -> TextPrompt:
    try:
        prompt.text.encode()
    except UnicodeEncodeError:  # bytes of the command line that are not UTF-8 come as surrogates
        raise UsageError(f"{prompt.place}: the prompt is not valid UTF-8, expected text in UTF-8") from None
    if not final_prompt(prompt.text):
        raise UsageError(f"{prompt.place}: the prompt {shortened(prompt.text)} is empty, expected words")
    return TextPrompt(prompt.text, prompt.place)


def with_answers(prompts: Sequence[TextPrompt], answers: Sequence[str]) -> list[TextPrompt]:
    """The prompts with what a rewriter made of each."""
    return [replace(prompt, rewritten=answer) for prompt, answer in zip(prompts, answers, strict=True)]


def finished(prompts: Sequence[TextPrompt], task: Task) -> list[TextPrompt]:
    """The prompts in their final form."""
    return [
        replace(each, final=final_prompt(each.rewritten or each.text, task.prefix, task.suffix)) for each in prompts
    ]


def negative_prompt(text: str) -> str:
    """The final form of a negative prompt, or of that in the file of ``@FILE``; it has no prefix and may be empty."""
    if text.startswith("@"):
        file = Path(text[1:])
        try:
            content = read_plain(file, MAX_NEGATIVE_BYTES)
            if content is None:
                raise UsageError(f"--negative-prompt {text}: is larger than {MAX_NEGATIVE_BYTES >> 20} MiB")
            text = content.decode("utf-8-sig")
        except OSError as error:
            raise UsageError(f"--negative-prompt {text}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise UsageError(f"--negative-prompt {text}: is not UTF-8 text, expected a prompt") from None
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("--negative-prompt: is not valid UTF-8, expected text in UTF-8") from None
    return final_prompt(text)


def texts_digest(prompts: Sequence[TextPrompt]) -> str:
    """Hash of all forms of the prompts, and their order."""
    lists: list[Mapping[str, Any]] = [prompt.described() for prompt in prompts]
    return sha256(json.dumps(lists).encode()).hexdigest()
