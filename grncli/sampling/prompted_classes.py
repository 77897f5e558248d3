"""The class that each prompt names, for generators that know classes but no text."""

import re
from collections.abc import Sequence

from grncli.runtime.errors import UsageError
from grncli.text.prompts import Prompt, shortened

SHOWN_CLASSES = 5


def classes_of(prompts: Sequence[Prompt], labels: Sequence[str]) -> list[int]:
    """Number of the class that each prompt names: the prompt is its name, or has it in it as whole words.

    Of names that overlap the longest counts: "a hot dog" is no dog.

    Raises
    ------
    UsageError
        If a prompt names no class, or several.
    """
    numbers = {name: number for number, name in enumerate(labels)}
    spelled: dict[str, set[str]] = {}
    for name in filter(None, numbers):
        spelled.setdefault(name.casefold(), set()).add(name)
    longest_first = "|".join(map(re.escape, sorted(spelled, key=len, reverse=True)))
    words = re.compile(rf"(?<!\w)(?:{longest_first})(?!\w)")
    chosen = []
    for prompt in prompts:
        names = {name for word in words.findall(prompt.text.casefold()) for name in spelled.get(word, ())}
        if prompt.text in numbers:
            names = {prompt.text}
        if len(names) != 1:
            raise _no_class(prompt, sorted(names), labels)
        chosen.append(numbers[names.pop()])
    return chosen


def _no_class(prompt: Prompt, names: Sequence[str], labels: Sequence[str]) -> UsageError:
    known = ", ".join(labels[:SHOWN_CLASSES]) + (", ..." if len(labels) > SHOWN_CLASSES else "")
    named = f"names {len(names)} classes ({', '.join(names[:SHOWN_CLASSES])})" if names else "names no class"
    return UsageError(
        f"{prompt.place}: the prompt {shortened(prompt.text)} {named}, expected exactly one class of {known}"
    )
