"""Limits of a container or batch job, read from a drawn /proc and /sys."""

from pathlib import Path

import pytest

from grncli.machine.system_limits import DiskState, core_quota, disk, memory

GROUP = "sys/fs/cgroup/jobs/step_0"


@pytest.fixture
def system(tmp_path):
    for name, text in {
        "proc/meminfo": "MemTotal:       1000 kB\nMemFree:  10 kB\nMemAvailable:    400 kB\nHugePages_Total: 0\n",
        "proc/self/cgroup": "0::/jobs/step_0\n",
        "proc/mounts": "/dev/a / ext4 rw 0 0\nserver:/x /data\\040sets nfs4 rw 0 0\n",
        f"{GROUP}/cpu.max": "max 100000\n",
        f"{GROUP}/memory.max": "300000\n",
        "sys/fs/cgroup/jobs/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/jobs/memory.max": "max\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_memory_is_that_of_the_machine_and_of_the_job(system):
    found = memory(system)
    assert (found.total, found.available, found.limit) == (1_024_000, 300_000, 300_000)


@pytest.mark.parametrize(
    ("current", "stat", "available"),
    [
        ("120000", "anon 60000\ninactive_file 20000\n", 200_000),
        ("290000", "inactive_file 0", 10_000),
        ("310000", "", 0),  # for a moment, or after the limit was lowered
        ("120000", "", 180_000),
        ("", "", 300_000),
    ],
)
def test_what_a_job_uses_already_is_not_available(system, current, stat, available):
    (system / GROUP / "memory.current").write_text(current)
    (system / GROUP / "memory.stat").write_text(stat)
    assert memory(system).available == available


def test_memory_that_others_use_is_not_available_to_a_job_of_a_large_limit(system):
    (system / GROUP / "memory.max").write_text("900000")
    assert memory(system).available == 409_600


def test_the_tightest_quota_of_the_job_and_those_around_it_holds(system):
    assert core_quota(system) == 1.5
    (system / GROUP / "cpu.max").write_text("50000 100000")
    assert core_quota(system) == 0.5


def test_a_system_that_tells_nothing_has_no_limits(tmp_path):
    assert core_quota(tmp_path) is None
    assert (memory(tmp_path).available, memory(tmp_path).limit) == (None, None)


def test_a_disk_is_that_of_the_nearest_folder(tmp_path):
    there = disk(tmp_path / "not/there/yet")
    assert there.path == str(tmp_path / "not/there/yet")
    assert 0 < there.free <= there.total


def test_the_file_system_is_that_of_the_nearest_mount(system, monkeypatch):
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 2, "free": 1}))
    assert disk(Path("/data sets/photos"), system) == DiskState("/data sets/photos", 2, 1, "nfs4")
    assert disk(Path("/data sets/photos"), system).is_remote
    assert not disk(Path("/elsewhere"), system).is_remote


def test_mounts_may_have_names_of_any_bytes(system, monkeypatch):
    (system / "proc/mounts").write_bytes(b"/dev/b /caf\xe9 ext4 rw 0 0\nserver:/x /a\\134b nfs4 rw 0 0\n")
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"total": 2, "free": 1}))
    assert disk(Path("/a\\b/photos"), system).file_system == "nfs4"
    assert disk(Path("/caf\udce9/photos"), system).file_system == "ext4"
