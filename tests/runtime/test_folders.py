"""Folders of ours: one process fills them, links in them are left alone, and they are noticed to be gone."""

import subprocess
import sys

import pytest

from grncli.runtime.errors import LockError, MissingFolderError, UsageError
from grncli.runtime.files import whole_file
from grncli.runtime.folders import ClaimedFolder, FolderMarker, HeldFolder, inside, is_vacant, make_folder, remove

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


# The marker of a folder


@pytest.fixture
def marker(tmp_path):
    folder = tmp_path / "out"
    return FolderMarker(
        folder=folder, file=folder / "made.json", command="grn x", purpose="a folder", remedy="choose another DIR"
    )


def test_nothing_and_an_empty_folder_are_vacant(tmp_path):
    assert is_vacant(tmp_path / "none")
    assert is_vacant(tmp_path)
    (tmp_path / ".lock").touch()
    assert not is_vacant(tmp_path)
    assert is_vacant(tmp_path, {".lock"})
    assert not is_vacant(tmp_path / ".lock")


def test_a_marked_folder_is_known_again(marker):
    assert marker.require({"rounds": 4}) is None
    marker.folder.mkdir()
    (marker.folder / ".lock").touch()
    (marker.folder / ".made.json.tmp").touch()
    assert marker.read() is None
    marker.write({"rounds": 4, "name": "\udcff"})
    assert marker.require({"rounds": 4, "name": "\udcff"}) == {"rounds": 4, "name": "\udcff"}


def test_a_folder_filled_with_something_else_is_refused_by_what_differs(marker):
    marker.folder.mkdir()
    marker.write({"store": {"rounds": 4}, "bits": "3f"})
    with pytest.raises(
        UsageError, match=r"other settings or data \(store.rounds=4 there, 2 asked\); choose another DIR"
    ):
        marker.require({"store": {"rounds": 2}, "bits": "3f"})
    assert marker.require({"store": {"rounds": 2}}, overwrite=True) == {"store": {"rounds": 4}, "bits": "3f"}


def test_what_others_put_there_is_refused_also_to_overwrite(marker):
    marker.folder.touch()
    with pytest.raises(UsageError, match="out is a file, expected a folder"):
        marker.require({}, overwrite=True)
    marker.folder.unlink()
    marker.folder.mkdir()
    (marker.folder / "photo.jpg").touch()
    with pytest.raises(UsageError, match="out holds files that grn x did not write; choose another DIR"):
        marker.require({}, overwrite=True)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_marker_is_refused_by_its_name(marker, text):
    marker.folder.mkdir()
    marker.file.write_text(text)
    with pytest.raises(UsageError, match=r"made\.json: .*; choose another DIR"):
        marker.read()


def test_a_held_folder_is_let_go_of_when_nobody_uses_it(tmp_path):
    held = HeldFolder(tmp_path)
    held.close()
    held.close()
    dropped = HeldFolder(tmp_path)._close
    assert not dropped.alive
