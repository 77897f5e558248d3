"""What a generator is trained with for the captions of a source."""

import pytest

from grncli.runs.caption_prompts import caption_prompts
from grncli.runs.generator_recipe import Task
from grncli.runtime.errors import StoreError
from grncli.store.captions import Caption, CaptionLine

TEMPLATES = Task(prefix="<T2V>", suffix=" Sharp.", suffix_field="quality_prompt")


def line(**fields):
    return CaptionLine("a.mp4", (Caption("long", "a  dog runs"), Caption(None, "dog")), fields)


@pytest.mark.parametrize(
    ("task", "fields", "ends"),
    [
        (TEMPLATES, {"quality_prompt": "There is text in the video."}, " There is text in the video."),
        (TEMPLATES, {"quality_prompt": ""}, ""),
        (TEMPLATES, {}, " Sharp."),
        (TEMPLATES, {"quality_prompt": None}, " Sharp."),
        (Task(prefix="<T2V>", suffix=" Sharp."), {"quality_prompt": "There is text in the video."}, " Sharp."),
    ],
)
def test_every_caption_ends_in_the_words_of_the_source_or_in_the_suffix(task, fields, ends):
    assert caption_prompts(line(**fields), task) == [f"<T2V>a dog runs{ends}", f"<T2V>dog{ends}"]


def test_words_that_are_no_text_are_refused_by_source_and_field():
    with pytest.raises(StoreError, match=r"^a\.mp4: field quality_prompt in captions\.jsonl is 3, expected text; .*"):
        caption_prompts(line(quality_prompt=3), TEMPLATES)
