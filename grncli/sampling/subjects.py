"""What samples are made of, and their numbers count through: classes, samples to start from, or prompts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from grncli.conditions import ClassCondition, Condition
from grncli.sampling.sampler import Request
from grncli.sampling.starting import Start
from grncli.text.prompts import Prompt, prompts_digest


class Subjects(ABC):
    """A list of subjects: number n * len(subjects) + s is the n-th sample of subject s, whichever are asked for."""

    condition_tokens = 0
    """Tokens that a condition adds to a sample's sequence, on average."""

    @property
    def chosen(self) -> Sequence[int]:
        """Subjects that samples are asked of: all of them."""
        return range(len(self))

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def key(self, subject: int, within: int) -> str:
        """Key of the n-th sample of a subject, which is the name of its file."""

    @abstractmethod
    def condition(self, number: int) -> Condition:
        """What the sample with a number is generated for."""

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What tells them from others, for fingerprints."""

    @abstractmethod
    def details(self, number: int) -> Mapping[str, Any]:
        """What records say of a sample beside its key."""

    def label(self, number: int) -> int:
        """Class of a sample as bit stores have it, -1 for none."""
        return -1

    def request(self, number: int) -> Request:
        """The sample with a number."""
        return Request(number, self.condition(number))

    def record(self, number: int) -> dict[str, Any]:
        """What ``samples.jsonl`` says of a sample; its key is the name of its file."""
        within, subject = divmod(number, len(self))
        return {"key": self.key(subject, within), "source": f"sample {number}", **self.details(number)}


@dataclass(frozen=True)
class LabelledSubjects(Subjects):
    """Subjects of a generator of classes.

    Parameters
    ----------
    labels : class names of the generator
    null_class : its label of samples without a class
    """

    labels: Sequence[str]
    null_class: int

    @abstractmethod
    def class_of(self, number: int) -> int:
        """Class that the sample with a number is generated for, the null class for none."""

    def label(self, number: int) -> int:
        """Class of a sample as bit stores have it, -1 for none."""
        label = self.class_of(number)
        return label if label < len(self.labels) else -1

    def condition(self, number: int) -> Condition:
        """The class."""
        return ClassCondition(torch.tensor([self.class_of(number)]), self.null_class)

    def details(self, number: int) -> Mapping[str, Any]:
        """The name of the class."""
        label = self.label(number)
        return {"class": self.labels[label] if label >= 0 else None}


@dataclass(frozen=True)
class ClassSubjects(LabelledSubjects):
    """Classes of a generator; one without any has a single subject that has no name."""

    classes: Sequence[int]
    all: bool  # whether they were chosen as all, whose number may grow

    @property
    def chosen(self) -> Sequence[int]:
        """The classes asked for."""
        return self.classes

    def __len__(self) -> int:
        return max(1, len(self.labels))

    def key(self, subject: int, within: int) -> str:
        """``class/000000``."""
        return f"{self.labels[subject]}/{within:06d}" if self.labels else f"{within:06d}"

    def class_of(self, number: int) -> int:
        """The subject itself."""
        return number % len(self)

    def described(self) -> dict[str, Any]:
        """For fingerprints."""
        return {"classes": "all" if self.all else list(self.classes), "init": None, "keep": None}


@dataclass(frozen=True)
class StartedSubjects(LabelledSubjects):
    """Samples to start from, each of its own class or all of one ``label``."""

    start: Start
    one_label: int | None

    def __len__(self) -> int:
        return len(self.start)

    def key(self, subject: int, within: int) -> str:
        """The key of what is started from, and a number."""
        return f"{self.start.record(subject)['key']}~{within:06d}"

    def class_of(self, number: int) -> int:
        """Their own, or the one for all."""
        return self.start.labels[number % len(self)] if self.one_label is None else self.one_label

    def request(self, number: int) -> Request:
        """With what is known of it."""
        tokens, known = self.start.known(number)
        return replace(super().request(number), known_tokens=tokens, known=known)

    def described(self) -> dict[str, Any]:
        """For fingerprints."""
        classes = "all" if self.one_label is None else [self.one_label]
        return {"classes": classes, "init": self.start.digest, "keep": self.start.kept}


@dataclass(frozen=True)
class PromptSubjects(LabelledSubjects):
    """Prompts, and the class that each names."""

    prompts: Sequence[Prompt]
    classes: Sequence[int]

    def __len__(self) -> int:
        return len(self.prompts)

    def key(self, subject: int, within: int) -> str:
        """``prompt/sample``, both as numbers."""
        return f"{subject:05d}/{within:05d}"

    def class_of(self, number: int) -> int:
        """The one that the prompt names."""
        return self.classes[number % len(self)]

    def details(self, number: int) -> Mapping[str, Any]:
        """The class, the prompt and its place in the list."""
        subject = number % len(self)
        return {**super().details(number), "prompt": self.prompts[subject].text, "prompt_number": subject}

    def described(self) -> dict[str, Any]:
        """For fingerprints; those of other samples have no such entry, as they had none before there were prompts."""
        return {"classes": "all", "init": None, "keep": None, "prompts": prompts_digest(self.prompts)}
