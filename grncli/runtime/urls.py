"""URLs where a path is expected: a path library makes folders of them without a word."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from grncli.runtime.errors import UsageError

URL_REMEDY = "only files of this machine are read and written, so copy them here first"

# At least two letters: one may be a drive. Chains such as simplecache::s3://b are URLs too.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://")
# `Path` keeps only one of the two slashes, and none at the end.
_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]+):(?:/|$)")


def is_url(text: str) -> bool:
    """Whether ``text`` begins as ``scheme://`` does."""
    return _URL.match(text) is not None


def refuse_urls(arguments: Iterable[Any]) -> None:
    """Raise UsageError for the first argument, also in a list, that is a URL and not the path of something there."""
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            refuse_urls(argument)
        elif isinstance(argument, Path) and (match := _URL_AS_PATH.match(str(argument))):
            slashes = "///" if match[1].lower() == "file" else "//"
            _refuse(str(argument), f"{match[1]}:{slashes}{str(argument)[match.end() :]}")
        elif isinstance(argument, str) and is_url(argument):
            _refuse(argument, argument)


def _refuse(path: str, url: str) -> None:
    if not os.path.lexists(path):
        raise UsageError(f"{url}: is a URL, expected a path; {URL_REMEDY}")
