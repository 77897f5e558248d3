"""Files beside media as captions: ``0001.txt`` beside ``0001.jpg``, one caption a line, or ``0001.json``."""

from grncli.media.label_forms import read_json_sidecar
from grncli.media.sidecars import Sidecar
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError
from grncli.runtime.jsonfiles import brief
from grncli.store.captions import is_unicode

MAX_BYTES = 64 << 10
"""Bytes of a text file that can be captions; a larger one is something else."""
JSON_FIELDS = ("captions", "caption", "text")


def may_have_captions(source: Source) -> bool:
    """Whether there is a place where captions of a source may stand; what is in a ``.json`` is not looked at."""
    in_manifest = source.row is not None and source.row.captions is not None
    return in_manifest or any(source.sidecar(suffix) for suffix in ("txt", "json"))


def captions_beside(source: Source) -> tuple[Sidecar, list[str]] | None:
    """The file beside a source that has its captions, and these; None where there is none.

    MediaError, which names the file, where a text file has no caption, or a JSON file is none.
    """
    for suffix, read in (("txt", caption_lines), ("json", caption_fields)):
        file = source.sidecar(suffix)
        try:
            texts = [] if file is None else read(file)
        except MediaError as error:
            assert file is not None
            raise MediaError(f"{file.name}: {error}") from None
        if file is not None and texts:
            return file, texts
    return None


def caption_fields(file: Sidecar) -> list[str]:
    """The captions in a JSON file, which may have none; MediaError where it is no JSON, or they are no text."""
    record = read_json_sidecar(file)
    texts: list[str] = []
    for name in JSON_FIELDS:
        value = record.get(name)
        several = value if isinstance(value, list) else [] if value is None else [value]
        for text in several:
            if not isinstance(text, str):
                raise MediaError(f"field {name} is {brief(value)}, expected text or a list of texts")
            if not is_unicode(text):
                raise MediaError(
                    f"field {name} is {brief(value)}, which is not valid Unicode; expected whole characters"
                )
            texts += filter(None, [text.strip()])
    return texts


def caption_lines(file: Sidecar) -> list[str]:
    """The captions, one a line, blank lines left out; MediaError where there is none, or the file is no text."""
    content = file.read(MAX_BYTES)
    if len(content) > MAX_BYTES:
        raise MediaError(f"has more than {MAX_BYTES >> 10} KiB, expected one caption a line")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MediaError(f"line {line} is not valid UTF-8, expected one caption a line") from None
    lines = [stripped for line in text.split("\n") if (stripped := line.strip())]
    if not lines:
        raise MediaError("is empty, expected one caption a line")
    return lines
