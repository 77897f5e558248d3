"""The packages of the extra ``text``, which are imported only where a text is read."""

from importlib import import_module
from typing import Any

from grncli.runtime.errors import UsageError


def text_package(name: str) -> Any:
    """The module called ``name``; UsageError with the command that installs it where it is missing."""
    try:
        return import_module(name)
    except ImportError:
        raise UsageError(f"reading prompts needs the {name} package: pip install 'grncli[text]'") from None
