"""Matching reconstructions to originals by the names of their files."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

from grncli.decoding.outputs import file_name
from grncli.media.sources import Source
from grncli.runtime.errors import UsageError


def match(
    ours: Sequence[Source], theirs: Sequence[Source], src: str, others: str, *, partly: bool = False
) -> list[tuple[Source, Source]]:
    """Pairs of one name, for each of ours; a suffix may differ or, as ``grn decode`` does it, be added.

    ``partly``: ours are some of more, so that theirs may be more.

    Raises
    ------
    UsageError
        If the counts differ, or one has no partner, with its name.
    """
    partners = _partners(ours, theirs)
    for source, partner in zip(ours, partners, strict=True):
        if partner is None:
            raise UsageError(
                f"{source.name} has no partner in {others}; expected a file of the same name for each of the "
                f"{len(ours)} in {src} (there are {len(theirs)})"
            )
    pairs = [(source, partner) for source, partner in zip(ours, partners, strict=True) if partner is not None]
    if len(theirs) != len(ours) and not partly:
        raise UsageError(f"{src} has {len(ours)} pictures and {others} {len(theirs)}; expected one for each")
    taken: dict[int, Source] = {}
    for source, partner in pairs:
        if id(partner) in taken:
            both = f"{taken[id(partner)].name} and {source.name}"
            raise UsageError(f"{both} both fit {partner.name}; expected one name for each pair")
        taken[id(partner)] = source
    return pairs


def _partners(ours: Sequence[Source], theirs: Sequence[Source]) -> list[Source | None]:
    """The best partner of each of ours: of the same name, of the name by ``grn decode``, or of another suffix.

    One that fits several goes to the one it fits best, while that leaves another for the others.
    """
    partners: list[Source | None] = [None] * len(ours)
    taken: set[int] = set()
    for ours_named, theirs_named in _NAMINGS:
        by_name: dict[str, list[Source]] = {}
        for source in theirs:
            by_name.setdefault(theirs_named(source.relative), []).append(source)
        for place, source in enumerate(ours):
            fitting = by_name.get(ours_named(source.relative), []) if partners[place] is None else []
            free = [other for other in fitting if id(other) not in taken]
            if free:
                partners[place] = free[0]
                taken.add(id(free[0]))
    for ours_named, theirs_named in _NAMINGS:
        names = {theirs_named(source.relative): source for source in reversed(theirs)}
        partners = [
            partner or names.get(ours_named(source.relative)) for source, partner in zip(ours, partners, strict=True)
        ]
    return partners


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _inner_stem(name: str) -> str:
    return _stem(_stem(name))


def _decoded(suffix: str) -> Callable[[str], str]:
    return lambda name: file_name({"key": name}, suffix)


_NAMINGS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_same, _same),
    (_decoded(".png"), _same),
    (_decoded(".mp4"), _same),
    (_same, _stem),
    (_stem, _stem),
    (_stem, _inner_stem),
)
"""Names of ours and of theirs that are equal for a pair, the surest first."""
