"""Options of ``grn sample`` that are refused before anything is opened, and those of the other kind of generator."""

from pathlib import Path
from typing import Any

from grncli.runtime.errors import UsageError
from grncli.sampling.settings import SampleOptions
from grncli.store import MAX_PARTS
from grncli.text.prompts import shortened

_OF_TEXTS = ("prompt", "text_encoder", "text", "negative_prompt", "rewrite", "first_frame")


def check_options(options: SampleOptions) -> None:
    """Refuse options that name no place to write to, or contradict each other."""
    if options.parts > MAX_PARTS:
        raise UsageError(f"--part {options.part}/{options.parts}: expected at most {MAX_PARTS} parts")
    if not 0 <= options.part < options.parts:
        raise UsageError(f"--part {options.part}/{options.parts}: parts count from 0 to {options.parts - 1}")
    if options.per_class is not None and options.per_class < 1:
        raise UsageError(f"--per-class {options.per_class}: expected 1 or more")
    _check_files(options)
    if options.keep is not None and options.init is None:
        raise UsageError(f"--keep {options.keep} needs --init STORE, the samples of which something is kept")
    for one, other in (
        ("prompt", "prompts"),
        ("text_encoder", "text"),
        ("first_frame", "init"),
        ("prompts", "classes"),
        ("prompt", "classes"),
    ):
        _refuse_both(options, one, other)


def check_class_options(options: SampleOptions, run: Path) -> None:
    """Refuse options of generators of texts, for one of classes."""
    name = next((name for name in _OF_TEXTS if getattr(options, name) is not None), None)
    if name is not None:
        instead = {"first_frame": "; --init STORE --keep first-frame does that", "prompt": "; --prompts names classes"}
        raise UsageError(
            f"{_flag(name)} is for generators that are conditioned on text, and {run} is not"
            f"{instead.get(name, '; leave it out')}"
        )
    _refuse_both(options, "prompts", "init")


def check_text_options(options: SampleOptions, run: Path, *, has_features: bool = False) -> None:
    """Refuse options of generators of classes, for one of texts, and the lack of what it is conditioned on."""
    if options.classes != "all":
        raise UsageError(f"--classes {options.classes}: {run} is conditioned on text, expected --prompt or --prompts")
    if options.text_encoder is None and options.text is None and not has_features:
        raise UsageError(
            f"{run} is conditioned on text, expected --text-encoder DIR or minilm, or --text STORE of features that "
            "grn encode-text made"
        )
    if options.prompt is None and options.prompts is None and options.init is None:
        raise UsageError(f"{run} is conditioned on text, expected --prompt TEXT or --prompts FILE")


def _check_files(options: SampleOptions) -> None:
    film = options.film
    if film is not None and film.suffix != ".mp4":
        raise UsageError(f"--film {film}: expected a name that ends in .mp4; a PNG is written beside it")
    beside = None if film is None else film.with_suffix(".png")
    if beside is not None and options.sheet == beside:
        raise UsageError(f"--sheet {options.sheet}: is also the picture beside --film; give another name")
    for name, path in (("--sheet", options.sheet), ("--film", film), ("--film", beside)):
        if path is not None and not path.absolute().parent.is_dir():
            raise UsageError(f"{name} {path}: there is no such folder, expected one that exists")
        if path is not None and path.is_dir():
            raise UsageError(f"{name} {path}: is a folder, expected the name of a file")


def _refuse_both(options: SampleOptions, one: str, other: str) -> None:
    values = {name: getattr(options, name) for name in (one, other)}
    if all(value is not None and not (name == "classes" and value == "all") for name, value in values.items()):
        first, second = (f"{_flag(name)} {_shown(value)}" for name, value in values.items())
        raise UsageError(f"{first} with {second}: expected one of the two")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: Any) -> str:
    return shortened(value) if isinstance(value, str) and " " in value else str(value)
