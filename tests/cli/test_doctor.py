"""The doctor as a process: what it shows, and what it finds wrong."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from grncli.cli import app
from grncli.machine import examination
from grncli.runtime.errors import LockError


def doctor(*arguments, **variables):
    command = [sys.executable, "-m", "grncli", "doctor", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "80"} | variables
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


def doctor_inside(*arguments):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)], env={"COLUMNS": "80"})


def test_a_sound_machine_is_described_in_80_columns_and_nothing_is_left_behind(tmp_path):
    done = doctor(tmp_path, "--cache", tmp_path / "cache")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in ("packages", "processor", "instructions", "devices", "memory", "disk", "ffmpeg", "weights"):
        assert f"\n  {name} " in done.stdout
    assert "\nWhat is slow here, and why\n  - " in done.stdout
    assert "Everything that the commands need works." in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_has_all_of_it(tmp_path):
    found = json.loads(doctor_inside(tmp_path, "--json", "--cache", tmp_path).stdout)
    assert (found["problems"], found["devices"][0]["name"], found["folder"]["path"]) == ([], "cpu", str(tmp_path))
    assert found["ffmpeg"]["version"]
    assert {one["network"] for one in found["weights"]} == {"inception", "i3d", "lpips vgg", "lpips alex", "minilm"}
    assert isinstance(found["slow"], list)


def test_a_package_that_does_not_load_is_named_and_the_rest_of_them_shown(tmp_path):
    (tmp_path / "torch.py").write_text('raise ImportError("libcudart.so.12: no such file", name="torch")')
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = doctor("--json", PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr == "grn: torch cannot be imported (libcudart.so.12: no such file); install it again\n"
    assert "zarr" in {one["name"] for one in json.loads(done.stdout)["packages"]}


def test_a_folder_that_is_not_there_is_a_problem(tmp_path):
    done = doctor_inside(tmp_path / "no")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "is no folder" in done.stderr


@pytest.mark.parametrize("error", [LockError("x cannot lock files."), OSError(30, "Read-only file system")])
def test_a_folder_that_no_store_can_lie_in_is_a_problem(monkeypatch, tmp_path, error):
    def refuse(lock):
        raise error

    monkeypatch.setattr(examination.PathLock, "acquire", refuse)
    done = doctor_inside(tmp_path)
    assert done.exit_code == 1
    assert "cannot lock files" in done.stderr or "Read-only file system" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_ffmpeg_that_does_not_run_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setattr(examination, "ffmpeg", lambda: str(tmp_path / "ffmpeg"))
    done = doctor_inside(tmp_path)
    assert done.exit_code == 1
    assert "ffmpeg: does not run (No such file or directory)" in done.stderr


def test_a_gpu_that_another_process_keeps_for_itself_is_a_problem_and_the_rest_is_shown(monkeypatch, tmp_path):
    def refuse(device):
        raise RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nFor debugging consider ...")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", refuse)
    done = doctor_inside(tmp_path)
    assert done.exit_code == 1
    shown = " ".join(done.stdout.split())
    assert "cuda:0: CUDA error: CUDA-capable device(s) is/are busy or unavailable memory " in shown
    assert "grn: cuda:0: cannot be used (CUDA error: " in done.stderr
    assert "\n  ffmpeg " in done.stdout
