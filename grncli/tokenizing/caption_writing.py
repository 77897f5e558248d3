"""Captions from manifests and files beside media into the ``captions.jsonl`` of a part, once its bits are committed.

They are a function of what SRC holds, so a killed run that is resumed leaves the same bytes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from grncli.media.caption_files import captions_beside, may_have_captions
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.store import PartWriter
from grncli.store.captions import Caption, CaptionLine

SHOWN_PROBLEMS = 5
_LOOK = 1000  # files between two looks at the clock


def add_captions(sources: Iterable[Source], part: PartWriter, monitor: Monitor, *, strict: bool) -> set[str]:
    """Give the part the captions of sources that have none yet: what ``grn captions`` gave is left as it is.

    Parameters
    ----------
    sources : all of the part; those that could not be read are left out
    monitor : says which text files are no captions, or have one twice
    strict : let the first of these be an error

    Returns
    -------
    Names of the sources that have captions now.

    Raises
    ------
    Stopped
        If the monitor asked to stop; none is written then, and the same command writes them all.
    MediaError, StoreError
    """
    lines = part.captions()
    known = {line.source for line in lines}
    wanted = (source for source in sources if source.name not in known and source.name not in part.failures)
    added = list(_read(wanted, part, monitor, strict=strict))
    if added:
        part.write_captions([*lines, *added])
    return known | {line.source for line in added}


def _read(sources: Iterable[Source], part: PartWriter, monitor: Monitor, *, strict: bool) -> Iterator[CaptionLine]:
    problems = 0

    def report(sentence: str) -> None:
        nonlocal problems
        problems += 1
        if strict:
            raise MediaError(f"{sentence}; stopped because of --strict, {part.samples} samples are saved")
        if problems <= SHOWN_PROBLEMS:
            monitor.say(sentence)
        if problems == SHOWN_PROBLEMS:
            monitor.say("further caption files with a problem are counted only")

    for number, source in enumerate(filter(may_have_captions, sources)):
        if number % _LOOK == 0 and monitor.stop_reason:
            raise Stopped(f"{monitor.stop_reason}: stopped before the captions, {part.samples} samples are saved")
        if source.row is not None and source.row.captions is not None:
            yield replace(source.row.captions, source=source.name)
            continue
        try:
            found = captions_beside(source)
        except MediaError as error:
            report(f"{error}; {source.name} has no caption")
            continue
        if found is None:
            continue
        file, texts = found
        distinct = list(dict.fromkeys(texts))
        if len(distinct) < len(texts) and file.suffix == "txt":  # two fields of a JSON file often say the same
            doubled = next(text for text in distinct if texts.count(text) > 1)
            report(f"{file.name}: has the caption {doubled[:60]!r} twice, expected each once; kept once")
        yield CaptionLine(source.name, tuple(Caption(None, text) for text in distinct))
