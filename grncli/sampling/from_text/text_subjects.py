"""Prompts as what samples of a generator of texts are made of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from grncli.conditions import Condition, TextCondition
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.sampling.from_text.first_frames import FirstFrames
from grncli.sampling.from_text.text_prompts import TextPrompt, texts_digest
from grncli.sampling.sampler import Request
from grncli.sampling.starting import Start
from grncli.sampling.subjects import Subjects
from grncli.text.prompt_features import PromptFeatures
from grncli.text.prompts import shortened

PROMPTS_AT_ONCE = 256  # between two looks at whether to stop


class SampledTexts:
    """The features of the prompts that are sampled: each distinct one is computed once, and is one tensor from then on.

    They are rounded to bfloat16 as in features stores, so that samples do not depend on where features come from.

    Parameters
    ----------
    features : what they come from; it is not kept
    prompts : final forms of those that are sampled
    negative : final form of the negative prompt
    max_tokens : of a prompt, that the generator learned

    Attributes
    ----------
    encoder : SHA-256 of the encoder that made them
    mean_tokens : of a prompt

    Raises
    ------
    UsageError
        If a prompt has more tokens, or there are no features of it.
    Unfinished
        If ``monitor`` asked for it.
    """

    def __init__(
        self, features: PromptFeatures, prompts: Collection[str], negative: str, max_tokens: int, monitor: Monitor
    ) -> None:
        distinct = list(dict.fromkeys([*prompts, negative]))
        self._features: dict[str, Tensor] = {}
        for start in range(0, len(distinct), PROMPTS_AT_ONCE):
            monitor.require_time("while features of prompts were computed; grn encode-text keeps them, for --text")
            some = distinct[start : start + PROMPTS_AT_ONCE]
            for prompt, feature in zip(some, features.of(some), strict=True):
                self._features[prompt] = feature.to(torch.bfloat16).float()
        for prompt, feature in self._features.items():
            if len(feature) > max_tokens:
                raise UsageError(
                    f"the prompt {shortened(prompt)} has {len(feature)} tokens, and the generator takes at most "
                    f"{max_tokens}; shorten it"
                )
        self.encoder = features.encoder.get("sha256", "")
        self.negative = negative
        self.mean_tokens = round(fmean(map(len, self._features.values())))

    def condition(self, prompt: str, *, clean_first: bool) -> TextCondition:
        """What a sample of a prompt in its final form is generated for."""
        return TextCondition.of([self[prompt]], self[self.negative], clean_first=clean_first)

    def __getitem__(self, prompt: str) -> Tensor:
        return self._features[prompt]


@dataclass(frozen=True)
class TextSubjects(Subjects):
    """Prompts, each alone or with the sample or picture that it starts from.

    Parameters
    ----------
    prompts : one for each subject, or one for all samples to start from
    start : samples to start from, or first frames, one for each prompt or one for all
    clean_first : whether the network is told that the first frame is true, and refines only the later ones
    """

    prompts: Sequence[TextPrompt]
    texts: SampledTexts
    start: Start | FirstFrames | None = None
    clean_first: bool = False

    @property
    def condition_tokens(self) -> int:  # type: ignore[override]
        """The text, and the token of the ratio."""
        return 1 + self.texts.mean_tokens

    def __len__(self) -> int:
        return len(self.start) if isinstance(self.start, Start) else len(self.prompts)

    def prompt_of(self, number: int) -> TextPrompt:
        """The prompt of a sample."""
        return self.prompts[number % len(self) % len(self.prompts)]

    def key(self, subject: int, within: int) -> str:
        """``prompt/sample``, both as numbers, or the key of what is started from, and a number."""
        if isinstance(self.start, Start):
            return f"{self.start.record(subject)['key']}~{within:06d}"
        return f"{subject:05d}/{within:05d}"

    def condition(self, number: int) -> Condition:
        """The features of its prompt."""
        return self.texts.condition(self.prompt_of(number).final, clean_first=self.clean_first)

    def request(self, number: int) -> Request:
        """With what is known of it."""
        request = super().request(number)
        if self.start is None:
            return request
        # Both repeat what they have; a share that stays known is drawn for the number.
        tokens, known = self.start.known(number if isinstance(self.start, Start) else number % len(self))
        return replace(request, known_tokens=tokens, known=known)

    def details(self, number: int) -> Mapping[str, Any]:
        """The prompt in all its forms, its place in the list, and the first frame."""
        subject = number % len(self)
        first = self.start.described(subject) if isinstance(self.start, FirstFrames) else {}
        return {"prompt_number": subject % len(self.prompts), **self.prompt_of(number).described(), **first}

    def described(self) -> dict[str, Any]:
        """For fingerprints."""
        described: dict[str, Any] = {
            "prompts": texts_digest(self.prompts),
            "negative_prompt": self.texts.negative,
            "encoder": self.texts.encoder,
        }
        if isinstance(self.start, Start):
            return described | {"init": self.start.digest, "keep": self.start.kept}
        if self.start is not None:
            return described | {"first_frame": self.start.digest}
        return described
