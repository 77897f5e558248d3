"""Help that a terminal of 80 columns shows whole, and examples that the commands accept."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from grncli.cli import app
from grncli.cli.help_pages import HelpfulApp, examples, examples_of, walk_commands

ROOT = typer.main.get_command(app)
with ROOT.make_context("grn", ["info"]) as context:
    PAGES = {about.command_path: command for command, about in walk_commands(ROOT, context)}
GROUPS = [path for path, command in PAGES.items() if hasattr(command, "commands") and path != "grn"]


def shown(path, columns=80):
    done = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": str(columns), "TERMINAL_WIDTH": ""})
    assert done.exit_code == 0, done.output
    return done.output


def commands_of(lines):
    """Each ``grn`` in lines of a shell as a list of words."""
    script = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    for line in script.splitlines():
        words = shlex.shlex(line.partition(" > ")[0], posix=True, punctuation_chars="|")
        words.whitespace_split = True
        pieces = " ".join(shlex.quote(word) if word != "|" else word for word in words).split(" | ")
        yield from (shlex.split(piece) for piece in pieces if piece.startswith("grn "))


@pytest.mark.parametrize("path", PAGES)
def test_every_help_fits_80_columns(path):
    assert max(map(len, shown(path).splitlines())) <= 80


@pytest.mark.parametrize("path", PAGES)
def test_every_help_ends_with_examples(path):
    lines = examples_of(PAGES[path])
    assert shown(path).endswith("\n".join(["Examples:", *(f"  {line}" for line in lines)]) + "\n")
    assert any(line.startswith(path) or f"| {path}" in line for line in lines) or path == "grn"


@pytest.mark.parametrize("path", PAGES)
def test_examples_are_accepted(path):
    for words in commands_of(examples_of(PAGES[path])):
        command, name = ROOT, words.pop(0)
        while words and words[0] in getattr(command, "commands", {}):
            name = words.pop(0)
            command = command.commands[name]
        assert command.make_context(name, words).params


def test_a_wrong_example_would_be_seen():
    assert list(commands_of(["# a", "find . | grn tokenize - \\", "    'a b' --size 4 | jq"])) == [
        ["grn", "tokenize", "-", "a b", "--size", "4"]
    ]
    with pytest.raises(Exception, match="No such option"):
        ROOT.commands["info"].make_context("info", ["--nonsense"])


@pytest.mark.parametrize("path", ["grn", *GROUPS])
def test_groups_list_their_commands_in_whole_sentences(path):
    text = " ".join(shown(path).split())
    for name, command in PAGES[path].commands.items():
        first = " ".join(command.help.split("\n\n")[0].split())
        assert f" {name} {first} " in text
        assert first.endswith(".")


@pytest.mark.parametrize("path", PAGES)
def test_every_command_is_quiet_and_keeps_a_log_on_request(path):
    text = shown(path)
    for option in ("-q, --quiet", "--log-file FILE", "--debug"):
        assert option in text or path in GROUPS


@pytest.mark.parametrize("path", [path for path in PAGES if path not in ("grn", *GROUPS)])
def test_every_report_can_be_json(path):
    assert "\n  --json " in shown(path) or path == "grn recipe schema"  # which prints nothing else


@pytest.mark.parametrize("path", PAGES)
def test_no_option_is_described_by_a_type_of_python(path):
    assert not re.findall(r"<[a-z |]+>", shown(path))


def test_usage_names_arguments_as_their_help_does():
    assert shown("grn tokenize").startswith("Usage: grn tokenize [OPTIONS] SRC... OUT.zarr\n")
    assert "\nArguments:\n  SRC... " in shown("grn tokenize")


def test_sections_follow_each_other_arguments_first_and_what_all_take_last():
    program = HelpfulApp()

    @program.command("one")
    @examples("grn one 1")
    def one(
        a: int = typer.Argument(metavar="A"),
        b: int = typer.Option(0, rich_help_panel="Others", help="Of others."),
        c: bool = typer.Option(False, "--c", help="Of none."),
    ) -> None:
        """Do one thing."""

    @program.command("two")
    def two() -> None:
        """Do another thing, whose first sentence is longer than a line of a terminal, which is why it is broken."""

    text = CliRunner().invoke(program, ["one", "--help"]).output
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        *("Arguments:", "Others:", "Options:", "Common options:", "Examples:")
    ]
    assert "broken." in CliRunner().invoke(program, ["--help"]).output


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("grn quant", {"quantize-stats"}),
        ("grn eval ", {"recon", "gen", "stats", "search", "export"}),
        ("grn sample gen out --sched", {"--schedule"}),
        ("grn sample gen out --schedule co", {"cosine", "complexity"}),
        ("grn tokenize a b --device c", {"cpu", "cuda"}),
        ("grn train-gen a b --dtype ", {"auto", "float32", "bfloat16"}),
        ("grn tokenize a b --labels d", {"dirs"}),
        ("grn train-gen c2i-small", {"c2i-small-bit", "c2i-small-ind"}),
        ("grn train-tokenizer c2i", set()),  # so that the shell takes files
        ("grn bench tokenizer-s", {"tokenizer-shapes", "tokenizer-shapes-joint", "tokenizer-small"}),
        ("grn recipe show t2v-s", {"t2v-small"}),
    ],
)
def test_the_shell_completes_commands_options_and_their_values(line, expected):
    words = line.split(" ")
    asked = {"_GRN_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-m", "grncli"], capture_output=True, text=True, env=os.environ | asked)
    assert set(done.stdout.split()) == expected, done.stderr


def test_shapes_reports_what_it_wrote(tmp_path):
    done = CliRunner().invoke(app, ["shapes", str(tmp_path / "d"), "--images", "2", "--clips", "0", "--json"])
    assert json.loads(done.stdout) == {"out": str(tmp_path / "d"), "images": 2, "clips": 0, "size": 32, "groups": 0}
