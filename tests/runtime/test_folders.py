"""Folders of ours: one process fills them, links in them are left alone, and they are noticed to be gone."""

import subprocess
import sys

import pytest

from grncli.runtime.errors import LockError, MissingFolderError
from grncli.runtime.files import whole_file
from grncli.runtime.folders import ClaimedFolder, inside, make_folder, remove

HOLD = """
import sys
from pathlib import Path
from grncli.runtime.folders import ClaimedFolder
with ClaimedFolder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_fills_the_folder(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockError, match=rf"{tmp_path} is being written by process {holder.pid} on "):
            ClaimedFolder(tmp_path)
        holder.stdin.close()
    with ClaimedFolder(tmp_path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [".lock"]
    assert (tmp_path / ".lock").read_bytes() == b""


def test_a_folder_that_left_its_place_is_noticed_and_not_made_anew(tmp_path):
    def write_elsewhere(path):
        assert path == tmp_path / "out/a/b.png"
        (tmp_path / "out").rename(tmp_path / "moved")
        path.write_bytes(b"")

    moved = "out was moved, replaced or removed"
    (tmp_path / "out").mkdir()
    with ClaimedFolder(tmp_path / "out") as folder:
        with pytest.raises(MissingFolderError, match=moved), folder.file("a/b.png") as path:
            write_elsewhere(path)
        with pytest.raises(MissingFolderError, match=moved), folder.file("c/d.png"):
            pass
        (tmp_path / "out").mkdir()
        with pytest.raises(MissingFolderError):
            folder.require_in_place()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("create", [False, True])
def test_no_way_leads_through_a_link(tmp_path, create):
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "outside")
    for name in ("a/x.png", "a/b/x.png"):
        with pytest.raises(OSError, match="is a link, and nothing is written") as caught:
            inside(tmp_path / "out", name, create=create)
        assert caught.value.filename == str(tmp_path / "out/a")


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").touch()
    for name in ("a", ".a.old"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
    remove(tmp_path / "a")
    remove(tmp_path / "none")
    assert [file.name for file in tmp_path.iterdir()] == ["outside"]
    assert (tmp_path / "outside/precious").exists()


def test_a_folder_is_never_found_half_empty(tmp_path, monkeypatch):
    make_folder(tmp_path / "a")
    (tmp_path / "a/file").touch()

    def killed(path):
        assert not (tmp_path / "a").exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("grncli.runtime.folders.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_link_in_place_of_the_temporary_file_is_not_written_through(tmp_path):
    (tmp_path / "outside").write_text("precious")
    (tmp_path / ".x.json.tmp").symlink_to(tmp_path / "outside")
    with whole_file(tmp_path / "x.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "outside").read_text() == "precious"
    assert (tmp_path / "x.json").read_text() == "new"
