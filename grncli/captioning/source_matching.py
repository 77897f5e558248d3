"""Which source of a store a path in a file of captions means."""

from collections.abc import Iterable, Sequence

from grncli.captioning.caption_manifest import ManifestLine
from grncli.media.listing.manifest_rows import with_span
from grncli.media.path_matching import SourceMatcher
from grncli.runtime.errors import UsageError
from grncli.runtime.text import printable


def match(lines: Sequence[ManifestLine], sources: Iterable[str]) -> tuple[dict[str, list[ManifestLine]], list[str]]:
    """The lines of each source that has some, and the paths that mean no source.

    Raises
    ------
    UsageError
        If a path means several sources, or a source (of a clip: a stretch of it) has two lines; names the lines.
    """
    matcher = SourceMatcher(sources)
    matched: dict[str, list[ManifestLine]] = {}
    lone: list[str] = []
    for line in lines:
        path = line.captions.source
        # Of a stretch that is a source of its own, before the whole clip.
        span = line.captions.span
        found = (matcher.find(with_span(path, span)) if span else ()) or matcher.find(path)
        if len(found) > 1:
            raise UsageError(
                f"{line.place}: {printable(path)} may be {found[0]} or {found[1]}, expected a path that only one "
                "source ends with; nothing was changed"
            )
        if not found:
            lone.append(path)
            continue
        others = matched.setdefault(found[0], [])
        for other in others:
            if other.captions.span == line.captions.span:
                raise UsageError(
                    f"{line.place}: gives captions of {found[0]} again, as {other.place} does, expected one line for a "
                    "source, or for each stretch of a clip; nothing was changed"
                )
        others.append(line)
    return matched, lone
