"""The user's rewriter: what is written to it, and every way it can fail."""

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished
from grncli.text import rewriting
from grncli.text.rewriting import rewrite

PROMPTS = ["a red star", 'zwei\u2028"Würfel"', "a cat"]
READ = "import json, sys; asked = [json.loads(line) for line in sys.stdin]\n"
SAY = 'def say(n, text): print(json.dumps({"number": n, "prompt": text}))\n'


@pytest.fixture
def command(tmp_path):
    def write(code):
        """A program that has read its prompts, and its command line."""
        (tmp_path / "it's one.py").write_text(READ + SAY + code)
        return shlex.join([sys.executable, str(tmp_path / "it's one.py")])

    return write


def test_answers_are_matched_by_number_in_any_order(command):
    assert rewrite(command("for each in asked[::-1]: say(each['number'], each['prompt'].upper())"), PROMPTS) == [
        prompt.upper() for prompt in PROMPTS
    ]


def test_many_prompts_pass_a_program_that_answers_while_it_reads(tmp_path):
    (tmp_path / "echo.py").write_text("import sys\nfor line in sys.stdin: print(line, end='', flush=True)\n")
    prompts = [f"{n} {'word ' * 40}".strip() for n in range(3000)]  # more than any pipe holds
    assert rewrite(f"{sys.executable} {tmp_path / 'echo.py'}", prompts) == prompts


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("say(0, 'x'); say(2, 'y')", "no answer for prompt 1, and 2 of 3 in all"),
        ("say(1, 'x'); say(1, 'y')", "answered prompt 1 twice"),
        ("say(3, 'x')", "answers prompt 3, expected 0 to 2"),
        ("say(-1, 'x')", "answers prompt -1"),
        ("say(True, 'x')", "line 1 of its output is"),
        ("say(1, ' ')", "answers prompt 1 with ' '"),
        ("say(1, None)", "answers prompt 1 with None"),
        ("say(1, '\\ud800')", "broken Unicode"),
        ("print('Thinking...')", "line 1 of its output: cannot be read as JSON"),
        ("print('[1]')", "line 1 of its output is"),
        ("print('x' * 2000000)", "more than 1 MiB"),
        ("sys.exit(3)", "failed with exit code 3"),
        ("for n in range(3): say(n, 'x')\nsys.stdout.flush(); sys.exit(1)", "failed with exit code 1"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended by SIGTERM"),
    ],
)
def test_a_rewriter_that_does_not_do_its_work_is_refused(command, code, words):
    with pytest.raises(UsageError, match=words):
        rewrite(command(code), PROMPTS)


@pytest.mark.parametrize(
    ("text", "words"), [("", "is empty"), ("no-such-program", "cannot be started"), ("a 'b", "No closing quotation")]
)
def test_what_is_no_command_is_refused(text, words):
    with pytest.raises(UsageError, match=words):
        rewrite(text, PROMPTS)


def test_a_silent_rewriter_is_given_up_with_all_it_started(command, tmp_path, monkeypatch):
    code = (
        "import subprocess, time\n"
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "say(0, 'x'); sys.stdout.flush(); time.sleep(60)"
    )

    def lose_patience(*_):
        """Once the program has begun, however long a busy machine takes for that."""
        monkeypatch.setattr(rewriting, "SILENCE_SECONDS", 0.2)

    with pytest.raises(UsageError, match="wrote nothing for"):
        rewrite(command(code), PROMPTS, Monitor(progress=lose_patience))
    state = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 5
    while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_stop_ends_the_rewriter(command):
    with pytest.raises(Unfinished, match="max-time"):
        rewrite(command("import time; time.sleep(60)"), PROMPTS, Monitor(Stop(0.5)))


def test_prompts_are_written_as_json_lines(command, tmp_path):
    rewrite(command(f"open({str(tmp_path / 'asked')!r}, 'w').write(json.dumps(asked))\n"
                    "for each in asked: say(each['number'], 'x')"), PROMPTS)  # fmt: skip
    asked = json.loads((tmp_path / "asked").read_text())
    assert asked == [{"number": n, "prompt": prompt} for n, prompt in enumerate(PROMPTS)]
