"""Where the text of each prompt of a training stands, in 26 bytes: millions of captions do not fit in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grncli.runs.caption_prompts import caption_prompts
from grncli.runs.generator_recipe import Task
from grncli.store import BitStore
from grncli.store.caption_index import CaptionFiles
from grncli.store.captions import LinePlace

Places = NDArray[Any]

PLACE = np.dtype(
    [("maker", "<i2"), ("part", "<i4"), ("offset", "<i8"), ("size", "<i4"), ("crc32c", "<u4"), ("caption", "<i4")]
)
"""Which `PromptMaker` makes a prompt, a `LinePlace`, and which caption of that line it is."""


@dataclass(frozen=True)
class PromptMaker:
    """The captions of a store with the templates of a task: ``image``, ``clip`` or ``first-frame``."""

    store: BitStore
    captions: CaptionFiles
    task: str
    templates: Task


class PromptTexts:
    """Prompts in their final form, by number, as the stores' captions have them."""

    def __init__(self, makers: Sequence[PromptMaker], places: Places) -> None:
        self._makers, self._places = makers, places

    def __len__(self) -> int:
        return len(self._places)

    def of(self, numbers: Sequence[int]) -> list[str]:
        """The text of each prompt; StoreError where captions were changed since they were counted."""
        return [self._text(*self._places[number].item()) for number in numbers]

    def _text(self, maker: int, part: int, offset: int, size: int, crc32c: int, caption: int) -> str:
        line = self._makers[maker].captions.line(LinePlace(part, offset, size, crc32c))
        return caption_prompts(line, self._makers[maker].templates)[caption]
