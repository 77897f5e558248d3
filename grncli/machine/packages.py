"""Which packages are installed, and which versions the program needs."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

DISTRIBUTION = "grncli"
FOR_DEVELOPERS = "dev"  # the extra that nothing at run time needs


@dataclass(frozen=True)
class PackageState:
    """A package that the program needs, always or for one of its extras.

    Attributes
    ----------
    needed : versions that do, such as ``>=2.4``; empty where any does
    installed : version that is installed, None for none
    extra : name of the extra it belongs to, None for what is always needed
    """

    name: str
    needed: str
    installed: str | None
    extra: str | None = None

    @property
    def fits(self) -> bool:
        """Whether a version is installed that does."""
        wanted = Requirement(f"{self.name}{self.needed}").specifier
        return self.installed is not None and wanted.contains(self.installed, prereleases=True)


def package_states() -> list[PackageState]:
    """Every package that this system needs for the program and its extras; none where the program is not installed."""
    try:
        wanted = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return []
    return [
        PackageState(one.name, str(one.specifier), _installed(one.name), extra)
        for one in wanted
        if (extra := _extra(one)) != FOR_DEVELOPERS and one.name != DISTRIBUTION and _applies(one, extra)
    ]


def package_problems(states: list[PackageState]) -> list[str]:
    """A sentence for each package that is missing though always needed, or installed in a version that does not do."""
    return [
        f"{one.name} {one.installed or 'is not installed'}, expected {one.name}{one.needed}: "
        f"pip install '{one.name}{one.needed}'"
        for one in states
        if not one.fits and (one.extra is None or one.installed is not None)
    ]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra(wanted: Requirement) -> str | None:
    """The extra that a requirement belongs to; its marker ends in ``extra == "name"``."""
    _, is_extra, rest = str(wanted.marker or "").partition('extra == "')
    return rest.partition('"')[0] if is_extra else None


def _applies(wanted: Requirement, extra: str | None) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra or ""})
