"""What ``grn encode-text`` will encode, with what, and what its store's settings say: settled before any work."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from grncli.runs.caption_prompts import caption_prompts
from grncli.runs.checkpoint import RECIPE, holds_weights, run_of
from grncli.runs.generator_recipe import Preview, Task, TextConditioning
from grncli.runs.recipe import load_fields, parse_recipe
from grncli.runs.shipped_recipes import find_recipe
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.urls import located
from grncli.store import MAX_PARTS, open_store
from grncli.store.captions import read_captions
from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import is_bit_store, refuse_bit_store
from grncli.text.prompt_batches import describe_cuts
from grncli.text.prompts import read_prompts, shortened
from grncli.text.templates import final_prompt, prompt_digest
from grncli.text.text_encoder import TextEncoder

TaskName = Literal["image", "clip", "first-frame"]
TOKENIZED_AT_ONCE = 1024  # prompts whose tokens are in memory at a time

_SUM = 1 << 256


@dataclass(frozen=True, kw_only=True)
class EncodeTextSettings:
    """The options of ``grn encode-text``; the first block decides what the features are."""

    recipe: Path | None = None  # run directory or recipe of a generator, whose templates are applied
    task: TaskName | None = None  # None: image for prompts, and for captions what each sample is
    dtype: Literal["float32", "bfloat16"] = "float32"

    part: int = 0
    parts: int = 1
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class EncodedPrompt:
    """A prompt in its final form, and how many tokens it has."""

    text: str
    digest: str
    tokens: int


@dataclass(frozen=True)
class PromptPlan:
    """The work of one part, before any of it is done."""

    encoder: TextEncoder
    distinct: int  # prompts of all parts together
    prompts: Sequence[EncodedPrompt]  # of this part, by length and digest
    cut: int  # prompts of this part that are longer than the encoder takes
    store: FeatureSettings

    def begins_with(self, done: int, digest: str) -> bool:
        """Whether so many prompts of an earlier run, of that digest, are the first ones of this part."""
        first = [prompt.digest for prompt in self.prompts[:done]]
        return len(first) == done and digest == prompt_sum("", first)


@dataclass(frozen=True, kw_only=True)
class RecipeTexts:
    """What a recipe says about prompts; the default one leaves them as they are."""

    tasks: Mapping[TaskName, Task] = field(default_factory=lambda: {name: Task() for name in get_args(TaskName)})
    encoder: str | None = None  # sha256
    width: int | None = None
    max_tokens: int | None = None
    previews: Sequence[str] = ()  # prompts of the sheets that are drawn while it trains
    place: str = ""


def make_prompt_plan(
    prompts: str, out: Path, open_encoder: Callable[[], TextEncoder], settings: EncodeTextSettings, monitor: Monitor
) -> PromptPlan:
    """Read the prompts, bring them to their final form, open the encoder, and count their tokens; nothing is written.

    Parameters
    ----------
    prompts : a file as `read_prompts` takes it, or ``-``; or a bit store with captions
    open_encoder : called once everything that needs no encoder is checked

    Raises
    ------
    UsageError, RecipeError, CheckpointError
    """
    if settings.parts > MAX_PARTS:
        raise UsageError(f"--part {settings.part}/{settings.parts}: expected at most {MAX_PARTS} parts")
    refuse_bit_store(out)
    texts = read_texts(settings.recipe, settings.task)
    finals = _final_prompts(prompts, texts, settings.task)
    encoder = open_encoder()
    _require_encoder(encoder, texts)
    mine = {
        text: name for text, name in finals.items() if part_of(prompt_digest(text), settings.parts) == settings.part
    }
    encoded, cuts = _tokenized(encoder, mine, texts)
    if cuts:
        monitor.say(describe_cuts(cuts, encoder.max_tokens))
    return PromptPlan(
        encoder=encoder,
        distinct=len(finals),
        prompts=sorted(encoded, key=lambda prompt: (prompt.tokens, prompt.digest)),
        cut=len(cuts),
        store=FeatureSettings(
            encoder=encoder.identity,
            width=encoder.width,
            dtype=settings.dtype,
            max_tokens=encoder.max_tokens,
            parts=settings.parts,
            versions={"grn": version("grncli"), "torch": torch.__version__, "python": sys.version.split()[0]},
        ),
    )


def part_of(digest: str, parts: int) -> int:
    """The part that a prompt falls to, whatever other prompts there are."""
    return int(digest[:16], 16) % parts


def prompt_sum(before: str, digests: Iterable[str]) -> str:
    """Digest of a set of prompts, in any order: that of the ones before, with these added (modulo 2**256)."""
    return f"{sum((int(digest, 16) for digest in digests), int(before or '0', 16)) % _SUM:064x}"


def read_texts(place: Path | None, task: TaskName | None) -> RecipeTexts:
    """The section ``text`` of a recipe file, or of that of a run or checkpoint; RecipeError where it has none."""
    if task is not None and task not in get_args(TaskName):
        raise UsageError(f"--task {task}: expected {' or '.join(get_args(TaskName))}")
    if place is None:
        return RecipeTexts()
    if not place.exists():
        place = find_recipe(place)
    run = run_of(place) if holds_weights(place) else place
    path = run / RECIPE if run.is_dir() else run
    fields = load_fields(path)
    network: dict[str, Any] = fields["network"] if isinstance(fields.get("network"), dict) else {}
    if network.get("type") != "text_transformer" and not fields.get("text"):
        raise UsageError(f"--recipe {place}: is not for a text-conditional generator, expected one that is")
    parts = {"text": fields.get("text") or {}, "preview": fields.get("preview") or {}}
    recipe = parse_recipe(parts, _TextSections, str(path))
    section = recipe.text
    width = network.get("text_width")
    return RecipeTexts(
        tasks={name: getattr(section, name.replace("-", "_")) for name in get_args(TaskName)},
        encoder=section.encoder.get("sha256") or None,
        width=width if isinstance(width, int) else None,
        max_tokens=section.max_tokens,
        previews=recipe.preview.prompts,
        place=str(place),
    )


@dataclass(frozen=True)
class _TextSections:
    text: TextConditioning
    preview: Preview


def _final_prompts(prompts: str, texts: RecipeTexts, chosen: TaskName | None) -> dict[str, str]:
    """Every distinct prompt in its final form, with what messages call it.

    A training on a store's captions draws the recipe's previews too.
    """
    names = {final_prompt(""): "the empty prompt"}
    is_store, negated = is_bit_store(Path(prompts)), set[str]()
    found = _captions_of(located(prompts), texts, chosen) if is_store else _prompts_in(prompts, texts, chosen)
    for final, name, used in found:
        task = texts.tasks[used]
        if used not in negated:
            negated.add(used)
            names.setdefault(final_prompt(task.negative_prompt), "the negative prompt")
            for preview in texts.previews if is_store else ():
                names.setdefault(final_prompt(preview, task.prefix, task.suffix), "a prompt of preview.prompts")
        names.setdefault(final, name)
    return names


def _prompts_in(prompts: str, texts: RecipeTexts, chosen: TaskName | None) -> Iterator[tuple[str, str, TaskName]]:
    """Final form, name and task of each prompt of a file."""
    used = chosen or "image"
    task = texts.tasks[used]
    for number, prompt in enumerate(read_prompts(Path(prompts)), start=1):
        yield final_prompt(prompt.text, task.prefix, task.suffix), f"prompt {number}", used


def _captions_of(path: Path, texts: RecipeTexts, chosen: TaskName | None) -> Iterator[tuple[str, str, TaskName]]:
    """The same of each caption of a bit store: those of clips and those of pictures have tasks of their own."""
    store = open_store(path)
    captions = read_captions(store)
    if not len(captions):
        raise UsageError(f"{path}: has no captions, expected some; add them with `grn captions {path} FILE.jsonl`")
    kinds: dict[str, set[TaskName]] = {source: set() for source in captions}
    for grid in store.grids:
        task: TaskName = chosen or ("clip" if grid[0] > 1 else "image")
        for line in store.records(store.grid(grid).indices.tolist()):
            if line["source"] in kinds:
                kinds[line["source"]].add(task)
    for source, used in kinds.items():
        for spoken in captions.lines(source):
            for task in sorted(used):
                yield from (
                    (final, f"the caption of {source}", task) for final in caption_prompts(spoken, texts.tasks[task])
                )


def _require_encoder(encoder: TextEncoder, texts: RecipeTexts) -> None:
    """UsageError for an encoder that is known not to be the recipe's."""
    sha256, name = encoder.identity["sha256"], encoder.identity["name"]
    if texts.encoder is not None and texts.encoder != sha256:
        raise UsageError(
            f"--text-encoder {name}: is encoder {sha256[:12]}, but {texts.place} was trained with "
            f"{texts.encoder[:12]}; give that one"
        )
    if texts.width is not None and texts.width != encoder.width:
        raise UsageError(
            f"--text-encoder {name}: its features are {encoder.width} wide, but {texts.place} expects "
            f"{texts.width}; give the encoder that it was trained with"
        )


def _tokenized(
    encoder: TextEncoder, names: dict[str, str], texts: RecipeTexts
) -> tuple[list[EncodedPrompt], list[tuple[str, str]]]:
    """The prompts with their lengths, and (name, word) of those that are cut."""
    prompts, encoded, cuts = list(names), list[EncodedPrompt](), list[tuple[str, str]]()
    most = texts.max_tokens or encoder.max_tokens
    for first in range(0, len(prompts), TOKENIZED_AT_ONCE):
        some = prompts[first : first + TOKENIZED_AT_ONCE]
        for text, tokens in zip(some, encoder.tokenize(some), strict=True):
            length = len(tokens.ids)
            if length > most:
                raise UsageError(
                    f"{names[text]} ({shortened(text)}) has {length} tokens, but {texts.place} takes at most {most}; "
                    "shorten it"
                )
            if tokens.cut_at is not None:
                cuts.append((names[text], tokens.cut_at))
            encoded.append(EncodedPrompt(text=text, digest=prompt_digest(text), tokens=length))
    return encoded, cuts
