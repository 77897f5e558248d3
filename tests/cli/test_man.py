"""Manual pages: everything that the help says, in the language of man."""

import json
import re
import shutil
import subprocess

import pytest
import typer
from typer.testing import CliRunner

from grncli.cli import app
from grncli.cli.help_pages import HelpfulApp, examples, walk_commands
from grncli.cli.man_pages import man_page

REQUESTS = {".TH", ".nh", ".ad", ".SH", ".PP", ".TP", ".nf", ".fi"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("man") / "man1"
    done = CliRunner().invoke(app, ["man", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    names = json.loads(done.stdout)["pages"]
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    return {name: (folder / name).read_text("ascii") for name in names}


def read(page):
    """The text of a page without the marks of roff."""
    text = re.sub(r"\\\[u([0-9A-F]+)\]", lambda match: chr(int(match[1], 16)), page)
    for mark, char in {
        "\\fB": "",
        "\\fR": "",
        "\\-": "-",
        "\\(aq": "'",
        "\\&": "",
        "\\(rs": "\\",
        "\\(ti": "~",
    }.items():
        text = text.replace(mark, char)
    return " ".join(text.split())


def test_every_command_has_a_page_that_names_its_options(pages):
    command = typer.main.get_command(app)
    with command.make_context("grn", ["info"]) as root:
        for one, context in walk_commands(command, root):
            text = read(pages[f"{context.command_path.replace(' ', '-')}.1"])
            assert f".SH SYNOPSIS {context.command_path} [OPTIONS]" in text
            for parameter in one.params:
                assert parameter.opts[0] in text or str(parameter.metavar) in text


def test_a_page_says_what_the_help_says(pages):
    text = read(pages["grn-tokenize.1"])
    assert ".SH NAME grn-tokenize - Encode images and clips into a bit store .SH" in text
    assert ".TP OUT.zarr Bit store to make, or to resume." in text
    assert "Fréchet" in read(pages["grn-eval-gen.1"])
    assert "find photos -name" in text
    assert "grn-eval-gen(1)" in text


def test_no_text_is_taken_for_a_request(pages):
    for page in pages.values():
        assert {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))} <= REQUESTS


def test_what_roff_would_read_otherwise_is_escaped():
    program = HelpfulApp()

    @program.command("one")
    @examples(".dotted 'first' \\", "    a-b ~/x")
    def one(a: str = typer.Option("", metavar='"A"', help="Of \\n and .x")) -> None:
        """.Do it."""

    @program.command("two")
    def two() -> None:
        """Do it."""

    group = typer.main.get_command(program)
    with group.make_context("grn", ["one"]) as root:
        _, (command, context), _ = walk_commands(group, root)
        page = man_page(command, context, version="1")
    assert "\\&.dotted \\(aqfirst\\(aq \\(rs\n    a\\-b \\(ti/x\n" in page
    assert "Of \\(rsn and .x" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_complain_of(pages):
    for page in pages.values():
        done = subprocess.run(["groff", "-man", "-ww", "-Tutf8"], input=page, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_pages_are_replaced_and_nothing_else_is_touched(tmp_path):
    (tmp_path / "grn-info.1").write_text("old")
    (tmp_path / "other.1").write_text("other")
    assert CliRunner().invoke(app, ["man", str(tmp_path)]).exit_code == 0
    assert (tmp_path / "grn-info.1").read_text().startswith(".TH")
    assert (tmp_path / "other.1").read_text() == "other"
