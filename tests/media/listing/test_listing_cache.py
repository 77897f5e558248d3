"""An archive that did not change is not read again, and nothing in the cache is believed that may be wrong."""

import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from grncli.media import archives
from grncli.media.listing import ListingOptions, list_sources, listing_cache
from grncli.runtime.errors import MediaError

NAMES = [f"c{number % 3}/{number:03}.jpg" for number in range(80)] + ["new\nline \udce9.png", "../out.png"]


def write(path, names=NAMES, age=10):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name.replace("\udce9", "é"), b"data")
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 4
                archive.addfile(info, io.BytesIO(b"data"))
    past = time.time() - age
    os.utime(path, (past, past))
    return path


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Lists with a cache; gives the listing and the archives that were read for it."""
    read = []
    members = archives.members
    monkeypatch.setattr(archives, "members", lambda path: (read.append(os.path.basename(path)), members(path))[1])

    def run(*src):
        read.clear()
        listing = list_sources(list(map(str, src)), ListingOptions(cache=tmp_path / "cache"))
        return listing, list(read)

    return run


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_an_unchanged_archive_is_not_read_again_and_lists_the_same(tmp_path, listed, suffix):
    path = write(tmp_path / f"x{suffix}")
    first, read = listed(path)
    assert read == [path.name]
    again, read = listed(path)
    assert (again, read) == (first, [])
    assert first == list_sources(str(path))


@pytest.mark.parametrize("change", ["content", "time", "inode"])
def test_a_changed_archive_is_read_again(tmp_path, listed, change):
    path = write(tmp_path / "x.tar")
    listed(path)
    status = path.stat()
    if change == "content":
        write(path, NAMES[:70])
    elif change == "time":
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 1))
    else:
        other = write(tmp_path / "y.tar", [name.replace("jpg", "png") for name in NAMES])
        os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
        other.replace(path)
    listing, read = listed(path)
    assert read == ["x.tar"]
    assert listing == list_sources(str(path))


def test_an_archive_that_was_just_written_or_is_small_is_not_kept(tmp_path, listed):
    young, small = write(tmp_path / "young.tar", age=0), write(tmp_path / "small.tar", ["a.png"])
    for _ in range(2):
        assert listed(young, small)[1] == ["young.tar", "small.tar"]


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_cache_is_a_listing_made_anew(tmp_path, listed, damage):
    path = write(tmp_path / "x.tar")
    expected, _ = listed(path)
    [file] = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:-9] if damage is None else damage)
    assert listed(path) == (expected, ["x.tar"])
    assert listed(path) == (expected, [])


def test_a_damaged_archive_is_never_kept(tmp_path, listed):
    path = write(tmp_path / "x.tar")
    os.truncate(path, path.stat().st_size // 2 + 100)
    os.utime(path, (1, 1))
    for _ in range(2):
        with pytest.raises(MediaError, match="is damaged"):
            listed(path)


def test_a_cache_that_cannot_be_written_changes_nothing(tmp_path, listed):
    path = write(tmp_path / "x.tar")
    (tmp_path / "cache").touch()
    for _ in range(2):
        listing, read = listed(path)
        assert (len(listing.sources), read) == (len(NAMES), ["x.tar"])


def test_the_cache_is_bounded_and_keeps_what_was_used_last(tmp_path, listed, monkeypatch):
    paths = [write(tmp_path / f"{number}.tar", [f"{number}/{name}" for name in NAMES[:-1]]) for number in range(3)]
    listed(*paths)
    files = sorted((tmp_path / "cache").iterdir())
    for file in files:
        os.utime(file, (1, 1))
    assert listed(paths[1])[1] == []  # its use is written down
    monkeypatch.setattr(listing_cache, "MOST_BYTES", files[0].stat().st_size * 5 // 2)
    new = write(tmp_path / "new.tar", [f"new/{name}" for name in NAMES[:-1]])
    listed(new)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert listed(paths[1], new)[1] == []


def test_many_processes_may_list_one_archive(tmp_path):
    path = write(tmp_path / "x.tar")
    script = (
        "import sys; from pathlib import Path; from grncli.media.listing import ListingOptions, list_sources;"
        "print(len(list_sources(sys.argv[1], ListingOptions(cache=Path(sys.argv[2]))).sources))"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path / "cache")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [run.communicate()[0] for run in runs] == [f"{len(NAMES)}\n"] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 1
