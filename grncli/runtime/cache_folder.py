"""Where what was downloaded is kept."""

import os
from pathlib import Path


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/grn``, by default below ``~/.cache``; for the commands, which read the environment."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grn"
