"""The captions of a source as the prompts that a generator is trained with."""

from typing import Any

from grncli.runs.generator_recipe import Task
from grncli.runtime.errors import StoreError
from grncli.runtime.jsonfiles import brief
from grncli.store.captions import CAPTIONS, CaptionLine
from grncli.text.templates import final_prompt


def caption_prompts(line: CaptionLine, task: Task) -> list[str]:
    """Each caption of a line in its final form, between the task's prefix and `suffix_of`; StoreError as that."""
    suffix = suffix_of(line, task)
    return [final_prompt(caption.text, task.prefix, suffix) for caption in line.captions]


def suffix_of(line: CaptionLine, task: Task) -> str:
    """What stands behind the captions of a line: a space and its words in ``task.suffix_field``, or the task's suffix.

    Facts section 8: the released training ends prompts of clips in their ``quality_prompt``.

    Raises
    ------
    StoreError
        If the field is there and no text.
    """
    words: Any = line.fields.get(task.suffix_field) if task.suffix_field else None
    if words is None:
        return task.suffix
    if not isinstance(words, str):
        raise StoreError(
            f"{line.source}: field {task.suffix_field} in {CAPTIONS} is {brief(words)}, expected text; give the "
            "captions again with `grn captions`, or choose another suffix_field in the recipe"
        )
    return f" {words.strip()}"
