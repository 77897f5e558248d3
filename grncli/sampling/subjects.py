"""What samples are made of, and their numbers count through: classes, samples to start from, or prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from grncli.sampling.prompts import Prompt, prompts_digest
from grncli.sampling.refiner import Job
from grncli.sampling.starting import Start


class Subjects(Protocol):
    """A list of subjects: number n * len(subjects) + s is the n-th sample of subject s, whichever are asked for."""

    @property
    def chosen(self) -> Sequence[int]:
        """Subjects that samples are asked of."""

    def __len__(self) -> int: ...

    def job(self, number: int) -> Job:
        """The sample with a number."""

    def key(self, subject: int, within: int) -> str:
        """Key of the n-th sample of a subject, which is the name of its file."""

    def told(self, subject: int) -> Mapping[str, Any]:
        """What records say of a subject beside the class."""

    def described(self) -> dict[str, Any]:
        """What tells them from others, for fingerprints."""


@dataclass(frozen=True)
class Classes:
    """Classes of a generator; one without any has a single subject that has no name."""

    labels: Sequence[str]
    chosen: Sequence[int]
    all: bool  # whether they were chosen as all, whose number may grow

    def __len__(self) -> int:
        return max(1, len(self.labels))

    def job(self, number: int) -> Job:
        """The sample with a number."""
        return Job(number, number % len(self))

    def key(self, subject: int, within: int) -> str:
        """``class/000000``."""
        return f"{self.labels[subject]}/{within:06d}" if self.labels else f"{within:06d}"

    def told(self, subject: int) -> Mapping[str, Any]:
        """Nothing beside the class."""
        return {}

    def described(self) -> dict[str, Any]:
        """For fingerprints."""
        return {"classes": "all" if self.all else list(self.chosen), "init": None, "keep": None}


@dataclass(frozen=True)
class Started:
    """Samples to start from, each of its own class or all of one ``label``."""

    start: Start
    label: int | None

    @property
    def chosen(self) -> Sequence[int]:
        """All of them."""
        return range(len(self.start))

    def __len__(self) -> int:
        return len(self.start)

    def job(self, number: int) -> Job:
        """The sample with a number."""
        label = self.start.labels[number % len(self)] if self.label is None else self.label
        return self.start.job(number, label)

    def key(self, subject: int, within: int) -> str:
        """The key of what is started from, and a number."""
        return f"{self.start.key(subject)}~{within:06d}"

    def told(self, subject: int) -> Mapping[str, Any]:
        """Nothing beside the class."""
        return {}

    def described(self) -> dict[str, Any]:
        """For fingerprints."""
        classes = "all" if self.label is None else [self.label]
        return {"classes": classes, "init": self.start.digest, "keep": self.start.kept}


@dataclass(frozen=True)
class Prompted:
    """Prompts, and the class that each names."""

    prompts: Sequence[Prompt]
    classes: Sequence[int]

    @property
    def chosen(self) -> Sequence[int]:
        """All of them."""
        return range(len(self.prompts))

    def __len__(self) -> int:
        return len(self.prompts)

    def job(self, number: int) -> Job:
        """The sample with a number."""
        return Job(number, self.classes[number % len(self)])

    def key(self, subject: int, within: int) -> str:
        """``prompt/sample``, both as numbers."""
        return f"{subject:05d}/{within:05d}"

    def told(self, subject: int) -> Mapping[str, Any]:
        """The prompt and its place in the list."""
        return {"prompt": self.prompts[subject].text, "prompt_number": subject}

    def described(self) -> dict[str, Any]:
        """For fingerprints; those of other samples have no such entry, as they had none before there were prompts."""
        return {"classes": "all", "init": None, "keep": None, "prompts": prompts_digest(self.prompts)}
