import io
import os
import struct
import tarfile
import zipfile
import zlib

import pytest

from grncli.media import archives
from grncli.media.archives import members, open_member
from grncli.media.listing import list_sources
from grncli.runtime.errors import MediaError


def contents(path):
    """Name and content, or problem, of each member."""
    found = []
    for member in members(str(path)):
        if member.problem is not None:
            found.append((member.name, member.problem))
        else:
            with open_member(str(path), member.offset, member.size) as file:
                found.append((member.name, file.read()))
    return found


class Pipe(io.BytesIO):
    """What a zip is written to when it goes through a pipe: sizes then come behind the data."""

    def seekable(self):
        return False

    def seek(self, *where):
        raise OSError("a pipe")

    def tell(self):
        raise OSError("a pipe")


def zipped(entries, method=zipfile.ZIP_STORED, stream=None, **options):
    stream = io.BytesIO() if stream is None else stream
    with zipfile.ZipFile(stream, "w", method) as archive:
        for entry, data in entries:
            with archive.open(entry, "w", **options) as file:
                file.write(data)
    return stream.getvalue()


def tarred(entries):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            else:
                info.type, info.linkname = data
                archive.addfile(info)
    return stream.getvalue()


SAME_NAME = [("a.png", b"first" * 50), ("a.png", b"second" * 50_000), ("b.png", b"third")]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_of_a_zip_are_known_by_their_place(tmp_path, method, stream, zip64):
    (tmp_path / "x.zip").write_bytes(zipped(SAME_NAME, method, stream(), force_zip64=zip64))
    assert contents(tmp_path / "x.zip") == SAME_NAME


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_streamed_member_is_read_without_the_directory(tmp_path, method, monkeypatch):
    (tmp_path / "x.zip").write_bytes(zipped([("a.png", b"data" * 1000)], method, Pipe()))
    [member] = members(str(tmp_path / "x.zip"))
    monkeypatch.setattr(archives, "_zip_file", None)
    with open_member(str(tmp_path / "x.zip"), member.offset, member.size) as file:
        assert file.read() == b"data" * 1000


def test_a_streamed_member_that_changed_is_noticed(tmp_path):
    data = bytearray(zipped([("a.png", bytes(1000))], stream=Pipe()))
    data[200] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(MediaError, match="checksum"):
        contents(tmp_path / "x.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("stream", [io.BytesIO, Pipe])
def test_a_member_that_unpacks_to_more_than_it_says_stops_early(tmp_path, method, stream):
    (tmp_path / "x.zip").write_bytes(zipped([("a.png", bytes(3_000_000))], method, stream()))
    [member] = members(str(tmp_path / "x.zip"))
    with pytest.raises(MediaError, match=r"checksum|unpacks to"):
        open_member(str(tmp_path / "x.zip"), member.offset, 1000)


def entry(name, system=3, extra=b""):
    info = zipfile.ZipInfo(name)
    info.create_system, info.extra = system, extra
    return info


def test_backslashes_of_windows_are_slashes(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped([(entry("a\\b\\1.png", 0), b"1"), (entry("c/2.png", 0), b"2")]))
    assert contents(tmp_path / "x.zip") == [("a/b/1.png", b"1"), ("c/2.png", b"2")]
    # A program of Windows that calls itself Unix, and stores directories.
    (tmp_path / "y.zip").write_bytes(zipped([(entry("a\\"), b""), (entry("a\\1.png"), b"1")]))
    assert contents(tmp_path / "y.zip") == [("a/1.png", b"1")]


def test_a_backslash_in_a_name_of_unix_stays(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped([("a/x.png", b"1"), ("a\\x.png", b"2")]))
    assert contents(tmp_path / "x.zip") == [("a/x.png", b"1"), ("a\\x.png", b"2")]


def test_a_windows_path_cannot_leave_the_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped([(entry("..\\1.png", 0), b"1"), (entry("\\a\\1.png", 0), b"1")]))
    assert {problem for _, problem in contents(tmp_path / "x.zip")} == {"has a name that points outside the archive"}


def legacy_zip(raw_names, extras):
    """A zip whose names are these bytes, without the flag of UTF-8."""
    marks = [f"@@{number:0{len(raw) - 2}d}" for number, raw in enumerate(raw_names)]
    data = zipped([(entry(mark, extra=extra), mark.encode()) for mark, extra in zip(marks, extras, strict=True)])
    for mark, raw in zip(marks, raw_names, strict=True):
        before, *between, directory = data.split(mark.encode())
        # Local header, content, directory.
        data = raw.join([before, between[0]]) + mark.encode() + mark.encode().join(between[1:]) + raw + directory
    return data


def unicode_path(name, raw):
    field = struct.pack("<BL", 1, zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(field)) + field


def test_names_of_unknown_encodings_stay_apart(tmp_path):
    (tmp_path / "x.zip").write_bytes(legacy_zip([b"caf\x82.png", b"caf\xe9.png"], [b"", b""]))
    assert contents(tmp_path / "x.zip") == [("caf\u00e9.png", b"@@000000"), ("caf\u0398.png", b"@@000001")]


def test_the_name_in_utf8_is_taken_if_it_belongs_to_the_member(tmp_path):
    raw, other = b"\x93\xfa\x96{.png", b"\x93\xfb\x96{.png"
    fitting, foreign = unicode_path("日本.png", raw), unicode_path("日本.png", raw)
    (tmp_path / "x.zip").write_bytes(legacy_zip([raw, other], [b"\x01\x00\x01\x00\x00" + fitting, foreign]))
    assert [name for name, _ in contents(tmp_path / "x.zip")] == ["日本.png", other.decode("cp437")]


def test_a_zip_in_front_of_a_zip_is_named(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped([("a.png", b"1")]) + zipped([("b.png", b"2")]))
    (own, data), (_, problem) = contents(tmp_path / "x.zip")
    assert (own, data) == ("b.png", b"2")
    assert "is not read" in problem
    [_, listed] = sorted(list_sources(f"{tmp_path}/x.zip/b.png").sources, key=lambda source: source.problem is not None)
    assert listed.label is None
    # A program in front, which unpacks what follows it, is no other zip.
    (tmp_path / "y.zip").write_bytes(b"#!/bin/sh\n" + zipped([("b.png", b"2")]))
    assert contents(tmp_path / "y.zip") == [("b.png", b"2")]


def test_tars_one_behind_the_other_are_all_read(tmp_path):
    parts = [tarred([(f"{n}.png", bytes([n]) * 700)]) for n in range(3)]
    # One of them ends after its two blocks of zeros, one is padded further than tar does it.
    (tmp_path / "x.tar").write_bytes(parts[0] + bytes(3 << 20) + parts[1][:2560] + parts[2] + bytes(100))
    assert contents(tmp_path / "x.tar") == [(f"{n}.png", bytes([n]) * 700) for n in range(3)]


def test_what_follows_a_tar_and_is_no_tar_is_named(tmp_path):
    data = tarred([("a.png", b"1")])
    (tmp_path / "x.tar").write_bytes(data + bytes(512) + b"a signature" * 10)
    own, (name, problem) = contents(tmp_path / "x.tar")
    assert own == ("a.png", b"1")
    assert str(len(data) + 512) in name
    assert "cannot be listed" in problem


def test_padding_of_a_tar_is_skipped_fast(tmp_path):
    with open(tmp_path / "x.tar", "wb") as file:
        file.write(tarred([("a.png", b"1")]))
        file.truncate(256 << 20)
    assert contents(tmp_path / "x.tar") == [("a.png", b"1")]


def test_links_of_a_tar_lead_to_files_in_it(tmp_path):
    data = tarred(
        [
            ("./cat/1.png", b"old"),
            ("dog/hard.png", (tarfile.LNKTYPE, "cat/1.png")),
            ("dog/soft.png", (tarfile.SYMTYPE, "../cat/./1.png")),
            ("dog/softer.png", (tarfile.SYMTYPE, "soft.png")),
            ("dog/harder.png", (tarfile.LNKTYPE, "dog/hard.png")),
            # Appended with `tar -r`: hard links made before are of the file as it was.
            ("cat/1.png", b"new"),
        ]
    )
    (tmp_path / "x.tar").write_bytes(data)
    assert contents(tmp_path / "x.tar") == [
        ("./cat/1.png", b"old"), ("cat/1.png", b"new"), ("dog/hard.png", b"old"), ("dog/soft.png", b"new"),
        ("dog/softer.png", b"new"), ("dog/harder.png", b"old"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../b.png"),
        (tarfile.SYMTYPE, "loop.png"),
        (tarfile.LNKTYPE, "none.png"),
        (tarfile.LNKTYPE, "later.png"),
    ],
)
def test_a_link_that_leads_nowhere_is_a_problem(tmp_path, kind, target):
    (tmp_path / "x.tar").write_bytes(tarred([("loop.png", (kind, target)), ("later.png", b"1")]))
    assert contents(tmp_path / "x.tar")[1] == ("loop.png", "is a link to something that is no file of the archive")


def test_a_tar_with_a_size_below_zero_ends(tmp_path):
    data = bytearray(tarred([("a.png", b"1"), ("b.png", b"2")]))
    header = data[1024:1536]
    header[124:136] = b"\xff" * 11 + bytes([0])
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(MediaError, match="is damaged"):
        contents(tmp_path / "x.tar")


def test_a_member_is_never_read_from_another_archive(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped([("a.png", b"1" * 100)]))
    [member] = members(str(tmp_path / "x.zip"))
    os.replace(tmp_path / "x.zip", tmp_path / "y.zip")
    (tmp_path / "x.zip").write_bytes(b"#" * 7 + zipped([("a.png", b"1" * 100)]))
    with pytest.raises(MediaError, match="not where the archive's directory says"):
        open_member(str(tmp_path / "x.zip"), member.offset, member.size)
