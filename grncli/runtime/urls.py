"""URLs where a path is expected: which are read, and which a path library would make folders of without a word."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote, urlsplit

from grncli.runtime.errors import UsageError

URL_REMEDY = "what is read and written here lies on this machine; grn copy copies stores and runs from and to URLs"

F = TypeVar("F", bound=Callable[..., Any])

# At least two letters: one may be a drive. Chains such as simplecache::s3://b are URLs too.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
# `Path` keeps only one of the two slashes, and none at the end.
_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):(?:/|$)")
_SCHEME_AS_PATH = re.compile(r"(?:^|(?<=::))([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


if TYPE_CHECKING:
    _SystemPath = Path
else:
    _SystemPath = type(Path())


class UrlPath(_SystemPath):
    """A URL where paths are handed around, which messages show as it was given; no file of this machine."""

    def __str__(self) -> str:
        return _SCHEME_AS_PATH.sub(r"\1://", super().__str__().replace(os.sep, "/"))


def is_url(text: str) -> bool:
    """Whether ``text`` begins as ``scheme://`` does."""
    return _URL.match(text) is not None


def located(place: str | Path) -> Path:
    """The path of a place of this machine; a `UrlPath` for a URL, also one that a path was made of."""
    text = str(place)
    if text.startswith("file:/"):
        return Path(unquote(urlsplit(text).path))
    if isinstance(place, UrlPath) or not (is_url(text) or _URL_AS_PATH.match(text)) or os.path.lexists(text):
        return place if isinstance(place, Path) else Path(place)
    return UrlPath(text)


def as_url_path(argument: Any) -> Any:
    """A path that was made of a URL as what it is, and anything else as it is."""
    return located(argument) if isinstance(argument, Path) else argument


def reads_urls(*names: str) -> Callable[[F], F]:
    """For a command or call: these arguments are stores, which may be URLs."""

    def declare(function: F) -> F:
        function.reads_urls = frozenset(names)  # type: ignore[attr-defined]
        return function

    return declare


def refuse_urls(function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for the first argument, also in a list, that is a URL and not the path of something there.

    Parameters
    ----------
    function : the arguments that `reads_urls` declares of it may be URLs
    arguments : by their names
    """
    reads = getattr(function, "reads_urls", ())
    _refuse(value for name, value in arguments.items() if name not in reads)


def _refuse(arguments: Iterable[Any]) -> None:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            _refuse(argument)
        elif isinstance(argument, Path) and (match := _URL_AS_PATH.match(str(argument))):
            slashes = "///" if match[1].lower() == "file" else "//"
            _require_there(str(argument), f"{match[1]}:{slashes}{str(argument)[match.end() :]}")
        elif isinstance(argument, str) and is_url(argument):
            _require_there(argument, argument)


def _require_there(path: str, url: str) -> None:
    if not os.path.lexists(path):
        raise UsageError(f"{url}: is a URL, expected a path; {URL_REMEDY}")
