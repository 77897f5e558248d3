"""What the demo's Makefile does around a command: times, output, and whose line is whose."""

import json
import subprocess
import sys
from pathlib import Path

STAGE = Path(__file__).parents[2] / "recipes/quickstart/stage.py"


def run(out: Path, *arguments: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(STAGE), "run", str(out), "bits", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"MAKEFLAGS": flags}, timeout=60)


def python(program: str) -> list[str]:
    return ["--", sys.executable, "-c", program]


def test_a_command_that_ends_well_is_in_the_log_with_its_time(tmp_path: Path) -> None:
    assert run(tmp_path, *python("")).returncode == 0
    line = json.loads((tmp_path / "stages.jsonl").read_text())
    assert line["stage"] == "bits"
    assert line["command"].endswith("-c ''")
    assert line["seconds"] < 60


def test_a_command_that_fails_has_its_exit_code_and_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "bits.json").write_text("earlier")
    done = run(tmp_path, "--to", str(tmp_path / "bits.json"), *python("print('half'); raise SystemExit(75)"))
    assert done.returncode == 75
    assert (tmp_path / "bits.json").read_text() == "earlier"
    assert not (tmp_path / "stages.jsonl").exists()


def test_output_becomes_a_file(tmp_path: Path) -> None:
    assert run(tmp_path, "--to", str(tmp_path / "bits.json"), *python("print(12)")).returncode == 0
    assert (tmp_path / "bits.json").read_text() == "12\n"


def test_of_two_stages_at_once_each_line_says_which_it_is_of(tmp_path: Path) -> None:
    program = "import sys; print('one\\ntwo', file=sys.stderr)"
    assert run(tmp_path, *python(program), flags="w -j2 --jobserver-auth=3,4").stderr == "bits | one\nbits | two\n"
    assert run(tmp_path, *python(program)).stderr == "one\ntwo\n"
