"""The prompts of pictures: as ``grn sample`` recorded them, or from a list of the user's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grncli.evaluation.measuring import Pictures
from grncli.runtime.errors import UsageError
from grncli.runtime.jsonfiles import brief, read_json
from grncli.sampling.pictures import LIST
from grncli.text.prompts import read_prompts

MAX_LIST_BYTES = 1 << 30
REMEDY = "run the same grn sample again, which writes it"


def recorded_prompts(folder: Path) -> dict[str, str]:
    """Prompt of each file of ``grn sample``, by its path below ``folder``; none where that is something else.

    The lists are those of the folder, or of the folders in it, as ``grn sample --prompts -`` fills them.
    """
    if not folder.is_dir():
        return {}
    prompts = {}
    for file in (folder / LIST, *sorted(folder.glob(f"*/{LIST}"))):
        prefix = file.parent.relative_to(folder)
        prompts.update({(prefix / name).as_posix(): prompt for name, prompt in _read(file)})
    return prompts


def paired_prompts(pictures: Pictures, file: Path | None) -> list[str]:
    """The prompt of each selected source, as the user gave it.

    Parameters
    ----------
    file : one prompt for each source that there is, in their order, where none are recorded

    Raises
    ------
    UsageError
        If a source has no prompt, or ``file`` has not as many as there are sources, or is not needed.
    """
    recorded = pictures.prompts()
    missing = [number for number, prompt in enumerate(recorded) if prompt is None]
    if file is None:
        if missing:
            raise UsageError(
                f"{pictures.src}: records no prompt of {len(missing)} of its {len(recorded)} pictures; expected those "
                "of grn sample, or --prompts FILE with one for each picture"
            )
        return [prompt for prompt in recorded if prompt is not None]
    if len(missing) < len(recorded):
        raise UsageError(f"--prompts {file}: {pictures.src} records the prompts of its pictures; leave the option out")
    prompts = read_prompts(file)
    if len(prompts) != pictures.total:
        raise UsageError(
            f"{file}: has {len(prompts)} prompts, and {pictures.src} {pictures.total} pictures; expected one for each, "
            "in the order of the files"
        )
    return [prompts[place].text for place in pictures.places]


def _read(file: Path) -> Sequence[tuple[str, str]]:
    """Files and prompts of a list; none where there is no such file, or its samples were made of no prompts."""
    try:
        document: Any = read_json(file, error=UsageError, remedy=REMEDY, most=MAX_LIST_BYTES)
    except FileNotFoundError:
        return []
    samples = document.get("samples") if isinstance(document, dict) else None
    if not isinstance(samples, list):
        raise UsageError(f"{file}: has no list of samples; {REMEDY}")
    pairs = []
    for sample in samples:
        name, prompt = (sample.get(key) if isinstance(sample, dict) else None for key in ("file", "prompt"))
        if not isinstance(name, str):
            raise UsageError(f"{file}: a sample has the file {brief(name)}, expected a path; {REMEDY}")
        if isinstance(prompt, str):
            pairs.append((name, prompt))
    return pairs
