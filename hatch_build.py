"""Build the manual pages into the wheel, which installs them where man looks: below share/man of its environment."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPages(BuildHookInterface):
    """What ``grn man`` writes, of this very version."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the pages into a folder that is removed once the wheel is built."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # the package itself: its command line needs typer only
        from typer.main import get_command

        from grncli.cli import app
        from grncli.cli.man_pages import command_pages

        self._folder = tempfile.TemporaryDirectory()
        with get_command(app).make_context("grn", ["info"]) as program:
            pages = command_pages(program, self.metadata.version)
        for name, text in pages.items():
            file = Path(self._folder.name, name)
            file.write_text(text, "utf-8")
            build_data["shared_data"][str(file)] = f"share/man/man1/{name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder."""
        if version != "editable":
            self._folder.cleanup()
