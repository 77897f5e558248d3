"""Members read from plain headers are those that ``tarfile`` finds, whatever wrote the archive."""

import io
import os
import tarfile

import pytest

from grncli.media.tar_members import tar_members

NAMES = ["a.jpg", "deep/" * 30 + "b.jpg", "x" * 120 + ".jpg", "café/日本.png", "c.txt", "sub.dir/d", "e" * 99]


def written(path, form, mtime=0.0, headers=None):
    with tarfile.open(path, "w", format=form, pax_headers=headers) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, name in enumerate(NAMES):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = number * 300, mtime
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return path


@pytest.mark.parametrize("mtime", [0, 1700000000.25])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_places_and_sizes_are_those_of_tarfile(tmp_path, form, mtime, monkeypatch):
    if form == tarfile.USTAR_FORMAT:
        monkeypatch.setattr(f"{__name__}.NAMES", [name for name in NAMES if len(name) < 120 or "/" in name])
    path = written(tmp_path / "x.tar", form, mtime)
    with tarfile.open(path) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive if info.isfile()]
    assert [(each.name, each.offset, each.size) for each in tar_members(str(path))] == expected
    assert [name for name, _, _ in expected] == NAMES


def test_a_header_that_says_more_of_all_members_is_heeded(tmp_path):
    path = written(tmp_path / "x.tar", tarfile.PAX_FORMAT, headers={"path": "renamed.jpg"})
    assert {member.name for member in tar_members(str(path))} == {"renamed.jpg", *NAMES[1:4]}


def test_an_extended_header_of_a_size_is_heeded(tmp_path):
    info = tarfile.TarInfo("b.jpg")
    info.size, info.pax_headers = 3, {"size": "600"}
    first = tarfile.TarInfo("a.jpg")
    content = first.tobuf() + info.tobuf(tarfile.PAX_FORMAT) + bytes(1024) + tarfile.TarInfo("c.jpg").tobuf()
    (tmp_path / "x.tar").write_bytes(content + bytes(1024))
    assert [(each.name, each.size) for each in tar_members(str(tmp_path / "x.tar"))] == [
        ("a.jpg", 0), ("b.jpg", 600), ("c.jpg", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 100, 130, 150, 345])
def test_a_damaged_header_is_an_error_and_not_the_end(tmp_path, place):
    path = written(tmp_path / "x.tar", tarfile.GNU_FORMAT)
    with tarfile.open(path) as archive:
        offset = archive.getmember("c.txt").offset + place
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x15]))
    with pytest.raises(tarfile.ReadError, match="no member begins at byte"):
        list(tar_members(str(path)))


def test_a_tar_cut_short_names_the_members_before_the_cut(tmp_path):
    path = written(tmp_path / "x.tar", tarfile.GNU_FORMAT)
    with tarfile.open(path) as archive:
        last = archive.getmember(NAMES[-1])
    os.truncate(path, last.offset_data + last.size - 1)
    found = tar_members(str(path))
    assert [next(found).name for _ in NAMES[:-1]] == NAMES[:-1]
    with pytest.raises(tarfile.ReadError, match="unexpected end of data"):
        next(found)
