"""What every command says: progress on a terminal and in a log, errors in a sentence, names of any bytes."""

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
import torch
import typer

from grncli.cli import console
from grncli.cli.console import Progress, guarded, print_json, say
from grncli.runtime.errors import GrnError, UsageError
from grncli.runtime.stopping import Stopped, Unfinished

ODD = os.fsdecode(b"caf\xe9-\xff.png")


class Terminal:
    """Standard error as a terminal of so many columns; ``shown`` is what was written to it."""

    def __init__(self, columns):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")

    def shown(self):
        self.stream.flush()
        os.set_blocking(self.ours, False)
        pieces = []
        with contextlib.suppress(BlockingIOError):
            while True:
                pieces.append(os.read(self.ours, 1 << 16))
        return b"".join(pieces).decode()

    def hang_up(self):
        os.close(self.ours)


@pytest.fixture
def terminal(monkeypatch):
    def make(columns=80):
        made = Terminal(columns)
        monkeypatch.setattr(sys, "stderr", made.stream)
        return made

    return make


def lines(shown):
    return [line.rstrip() for line in shown.replace("\n", "\r").split("\r") if line.strip()]


# Progress on a terminal


@pytest.mark.parametrize("what", ["tokenize", "train-tokenizer"])
def test_the_bar_keeps_its_place_beside_a_long_note_in_80_columns(terminal, monkeypatch, what):
    screen = terminal(80)
    progress = Progress(what, "sources")
    progress(0, 100000)
    progress(50000, 100000, "loss 0.1234, accuracy 0.5678, validation_image_psnr 24.31, and more " * 2)
    progress._bar.refresh()
    last = lines(screen.shown())[-1]
    assert len(last) <= 80
    bar = last.split("|")[1]
    assert len(bar) >= 10
    assert bar.count("█") == len(bar) // 2
    assert "50000/100000" in last


def test_the_bar_moves_with_every_step_from_the_first(terminal):
    screen = terminal(100)
    progress = Progress("train-gen", "steps")
    for step in range(4):
        progress(step, 100)
        progress._bar.refresh()
    shown = screen.shown()
    assert [f"{step}/100 " in shown for step in range(4)] == [True] * 4


def test_a_terminal_that_closes_does_not_end_the_work(terminal):
    screen = terminal()
    with Progress("tokenize", "sources") as progress:
        progress(0, 10)
        screen.hang_up()
        for done in range(1, 10):
            progress(done, 10)
            progress.say("something")
    say("the end")


# Progress in a log


def test_a_log_has_a_line_every_30_seconds(monkeypatch, capsys):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    progress = Progress("train-gen", "steps")
    for step in range(100):
        progress(step, 100, "loss 1")
        now[0] += 1
    said = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in said] == [f"train-gen: {done}/100 steps" for done in (30, 60, 90)]


def test_what_is_said_without_standard_error_goes_nowhere(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    Progress("tokenize", "sources")(1, 2)
    say("nothing")
    assert capsys.readouterr().out == ""


# Errors


def code_and_words(error, capsys):
    @guarded
    def fail():
        raise error

    with pytest.raises(typer.Exit) as left:
        fail()
    return left.value.exit_code, capsys.readouterr().err.strip()


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (GrnError("x is y"), 1, "grn: x is y"),
        (UsageError("x is y"), 2, "grn: x is y"),
        (Stopped("SIGHUP: stopped"), 75, "SIGHUP: stopped. Run the same command again to resume."),
        (Unfinished("Ctrl-C: stopped"), 130, "Ctrl-C: stopped. Nothing of it is kept"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(24, "Too many open files", "a.png"), 1, "grn: a.png: Too many open files"),
        (OSError(12, "Cannot allocate memory"), 1, "grn: out of memory"),
        (MemoryError(), 1, "grn: out of memory (MemoryError); take smaller batches"),
        (ImportError("libtorch.so: failed to map segment from shared object"), 1, "grn: out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 1, "grn: out of memory (CUDA out"),
        (RuntimeError("could not create a primitive"), 1, "grn: out of memory"),
        (RuntimeError("shapes differ"), 1, "grn: a fault of grn itself, RuntimeError: shapes differ"),
    ],
)
def test_an_error_is_a_sentence_and_an_exit_code(error, code, words, capsys):
    found, said = code_and_words(error, capsys)
    assert (found, said.startswith(words), len(said.splitlines())) == (code, True, 1), said


def test_memory_that_is_not_there_is_no_fault_of_grn(capsys):
    """PyTorch has an error of its own for it."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert code_and_words(refused.value, capsys)[1].startswith("grn: out of memory (")


def test_debug_keeps_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(console, "debug", True)
    code, said = code_and_words(UsageError("x is y"), capsys)
    assert (code, "Traceback" in said, said.splitlines()[-1]) == (2, True, "grn: x is y")


def test_each_of_several_processes_but_the_first_says_which_it_is(monkeypatch, capsys):
    monkeypatch.setattr(console, "speaker", "process 1 of 2: ")
    assert code_and_words(Stopped("SIGTERM: stopped"), capsys) == (
        75,
        f"process 1 of 2: SIGTERM: stopped. {Stopped.advice}.",
    )
    assert code_and_words(GrnError("x is y"), capsys) == (1, "grn: process 1 of 2: x is y")


# Names of any bytes


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_with_any_name_can_be_printed_and_read_in_any_encoding(monkeypatch, encoding):
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    print_json({"name": ODD, "other": "naïve \U0001f600"})
    sys.stdout.flush()
    document = json.loads(out.getvalue().decode("ascii" if encoding != "utf-8" else "utf-8"))
    assert document == {"name": ODD, "other": "naïve \U0001f600"}


def test_a_message_is_one_line_whatever_names_it_holds(capsys):
    say(f"a\nb\x1b[2J{ODD}: cannot be read")
    assert capsys.readouterr().err == "a\\nb\\x1b[2Jcaf\\xe9-\\xff.png: cannot be read\n"


# The process


def grn(*arguments, **options):
    return subprocess.run(arguments, stderr=subprocess.PIPE, timeout=120, **options)


SCRIPT = os.path.join(os.path.dirname(sys.executable), "grn")
WAYS = [
    pytest.param([sys.executable, "-m", "grncli"], id="python -m grncli"),
    pytest.param(
        [SCRIPT], id="grn", marks=pytest.mark.skipif(not os.path.exists(SCRIPT), reason="grn is not installed here")
    ),
]


@pytest.mark.parametrize("way", WAYS)
def test_both_ways_to_start_it_are_alike(way, tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9\xff")
    made = grn(*way, "shapes", folder, "--images", "1", "--clips", "0", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (made.returncode, b"caf\\xe9\\xff: 1 picture and" in made.stderr) == (0, True), made.stderr
    wrong = grn(*way, "shapes", folder, "--images", "-1")
    assert wrong.returncode == 2
    missing = grn(*way, "info", os.path.join(folder, b"no\xff"))
    assert (missing.returncode, missing.stderr.count(b"\n")) == (1, 1)


def test_results_that_nobody_reads_end_with_1_and_no_complaint(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    result = grn(sys.executable, "-m", "grncli", "--version", stdout=writing)
    os.close(writing)
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
@pytest.mark.parametrize("buffering", [[], ["-u"]])
@pytest.mark.parametrize("words", [["--version"], ["recipe", "list"]])
def test_results_that_cannot_be_written_are_told_in_a_sentence(words, buffering, monkeypatch):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with open("/dev/full", "w") as full:
        result = grn(sys.executable, *buffering, "-m", "grncli", *words, stdout=full)
    assert (result.returncode, result.stderr) == (1, b"grn: standard output: No space left on device\n")


# Quiet, logs and colour


@pytest.mark.parametrize("place", ["before", "behind"])
def test_quiet_leaves_errors_and_results(place, tmp_path):
    def say_little(*arguments):
        words = ["-q", *arguments] if place == "before" else [*arguments, "-q"]
        return grn(sys.executable, "-m", "grncli", *words, stdout=subprocess.PIPE)

    made = say_little("shapes", str(tmp_path / "d"), "--images", "1", "--clips", "0", "--json")
    assert (made.returncode, made.stderr, json.loads(made.stdout)["images"]) == (0, b"", 1)
    (tmp_path / "file").touch()
    failed = say_little("man", str(tmp_path / "file/pages"))
    assert (failed.returncode, failed.stderr.startswith(b"grn: ")) == (1, True)


def test_quiet_shows_no_bar_and_what_must_be_seen(terminal, monkeypatch):
    screen = terminal()
    monkeypatch.setattr(console, "quiet", True)
    with Progress("tokenize", "sources") as progress:
        progress(1, 10)
        progress.say("something")
    say("2 sources could not be read", always=True)
    assert lines(screen.shown()) == ["2 sources could not be read"]


def test_a_log_has_what_was_said_with_times_and_how_it_ended(tmp_path):
    log = tmp_path / "grn.log"
    (tmp_path / "file").touch()
    for command in (["shapes", "d", "--images", "1", "--clips", "0"], ["man", "file/pages"]):
        grn(sys.executable, "-m", "grncli", "-q", *command, "--log-file", str(log), cwd=tmp_path)
    stamps, texts = zip(*(line.split(" ", 1) for line in log.read_text().splitlines()), strict=True)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", stamp) for stamp in stamps)
    assert [re.sub(r"\(.*|after .*", "", text).strip() for text in texts if "expected" not in text][:3] == [
        f"begin: grn -q shapes d --images 1 --clips 0 --log-file {log}",
        "d: 1 picture and 0 clips of 32x32",
        "end: exit code 0",
    ]
    assert texts[4] == "grn: file/pages: Not a directory"
    assert texts[5].startswith("end: exit code 1 after ")


def test_a_log_has_a_line_every_30_seconds_beside_a_bar_and_the_traceback_of_a_fault(terminal, monkeypatch, tmp_path):
    now = [1000.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    terminal()

    @guarded
    def fail():
        progress = Progress("train-gen", "steps")
        for step in range(70):
            progress(step, 100)
            now[0] += 1
        raise KeyError("what")

    with pytest.raises(typer.Exit):
        fail(log_file=tmp_path / "log")
    texts = [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text().splitlines()]
    assert [text.split(",")[0] for text in texts[1:3]] == ["train-gen: 30/100 steps", "train-gen: 60/100 steps"]
    assert "Traceback (most recent call last):" in texts
    assert texts[-2].startswith("grn: a fault of grn itself, KeyError")


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    result = grn(sys.executable, "-m", "grncli", "--log-file", str(tmp_path / "no/log"), "info", str(tmp_path))
    assert (result.returncode, result.stderr.count(b"\n")) == (2, 1)
    assert b"--log-file" in result.stderr


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_only_a_terminal_that_wants_colour_has_it(terminal, monkeypatch, environment, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    screen = terminal()
    console.complain("x is y")
    assert ("\x1b[31m" in screen.shown()) == coloured


def test_a_pipe_has_no_colour(capsys):
    console.complain("x is y")
    assert capsys.readouterr().err == "grn: x is y\n"
