import io
import json
import os
import socket
import sys
import tarfile
import zipfile

import pytest

from grncli.media.listing import list_sources
from grncli.media.sources import describe_ignored, sorted_names
from grncli.runtime.errors import MediaError, UsageError


def names(listing):
    return [source.relative for source in listing.sources]


def problems(listing):
    return {source.relative: source.problem for source in listing.sources if source.problem}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, b"data")
    return str(path)


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    return str(path)


def test_a_directory_is_listed_in_order_with_labels(tmp_path, make_image):
    for name in ("b/2.png", "a/x.JPG", "b/10.png", "top.webp", "a/deep/er/y.gif", "a.png"):
        make_image(name)
    (tmp_path / "notes.md").touch()
    (tmp_path / "paths.txt").touch()
    (tmp_path / "v.MP4").touch()
    listing = list_sources(str(tmp_path))
    assert names(listing) == sorted(names(listing))
    assert {source.relative: source.label for source in listing.sources} == {
        "a.png": None, "a/deep/er/y.gif": "er", "a/x.JPG": "a", "b/10.png": "b", "b/2.png": "b",
        "top.webp": None, "v.MP4": None,
    }  # fmt: skip
    assert listing.ignored == 2
    assert [source.kind for source in listing.sources].count("clip") == 1
    assert listing.sources[0].name == str(tmp_path / "a.png") == listing.sources[0].path


def test_hidden_files_are_skipped(tmp_path, make_image):
    for name in (".hidden.png", ".git/x.png", "__MACOSX/x.png", "seen.png"):
        make_image(name)
    listing = list_sources(str(tmp_path))
    assert names(listing) == ["seen.png"]
    assert listing.ignored == 0


def test_a_trailing_slash_changes_nothing(tmp_path, make_image):
    make_image("d/a.png")
    assert list_sources(f"{tmp_path}/d/") == list_sources(f"{tmp_path}/d")


def test_one_file_is_one_source(tmp_path, make_image, monkeypatch):
    make_image("-n.png")
    monkeypatch.chdir(tmp_path)
    [source] = list_sources("-n.png").sources
    assert (source.name, source.relative, source.label) == ("-n.png", "-n.png", None)


def test_links_to_files_and_directories_are_followed(tmp_path, make_image):
    make_image("real/a.png")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "file.png").symlink_to(tmp_path / "real" / "a.png")
    (tmp_path / "src" / "dir").symlink_to(tmp_path / "real")
    (tmp_path / "src" / "gone.png").symlink_to(tmp_path / "nothing")
    listing = list_sources(str(tmp_path / "src"))
    assert names(listing) == ["dir/a.png", "file.png", "gone.png"]
    assert problems(listing) == {"gone.png": "is a link to a file that does not exist"}


def test_a_loop_of_links_ends_as_a_problem(tmp_path, make_image):
    make_image("a/x.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    listing = list_sources(str(tmp_path))
    assert names(listing) == ["a/up", "a/x.png", "self.png"]
    assert "loop" in problems(listing)["a/up"]
    assert "self.png" in problems(listing)


def test_pipes_and_sockets_are_not_opened(tmp_path, make_image):
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tmp_path)
        listener.bind("socket.mp4")
        os.chdir(here)
    listing = list_sources(str(tmp_path))
    assert set(problems(listing)) == {"fifo.png", "socket.mp4"}
    assert list_sources(str(tmp_path / "fifo.png")).sources[0].problem


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_an_unreadable_directory_is_a_problem(tmp_path, make_image):
    make_image("ok.png")
    make_image("no/x.png")
    (tmp_path / "no").chmod(0)
    try:
        assert "cannot be listed" in problems(list_sources(str(tmp_path)))["no"]
    finally:
        (tmp_path / "no").chmod(0o700)


def test_playlists_are_problems(tmp_path, make_image):
    make_image("ok.png")
    for suffix in ("m3u8", "m3u", "concat", "ffconcat", "pls", "mpd", "sdp"):
        (tmp_path / f"list.{suffix}").write_text("file ok.png\n")
    listing = list_sources(str(tmp_path))
    assert len(problems(listing)) == 7
    assert all("is a playlist" in problem for problem in problems(listing).values())
    [alone] = list_sources(str(tmp_path / "list.m3u8")).sources
    assert "is a playlist" in alone.problem


@pytest.mark.parametrize("name", [b"caf\xe9.png", "日本語.png".encode(), b"-dash.png", b"new\nline.png", b"a b.png"])
def test_any_file_name_can_be_shown_and_opened(tmp_path, make_image, name):
    make_image(name)
    [source] = list_sources(str(tmp_path)).sources
    source.name.encode("utf-8")
    json.dumps(source.name)
    with open(source.path, "rb") as file:
        assert file.read(4) == b"\x89PNG"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("new\nline.png", "new\\nline.png"),
        ("\x1b[31mred\x7f.png", "\\x1b[31mred\\x7f.png"),
        ("\u202egnp.a.png", "\\u202egnp.a.png"),
        ("a\u2066b\u2028c\x85.png", "a\\u2066b\\u2028c\\x85.png"),
        ("caf\udce9\n.png", "caf\\xe9\\n.png"),
        ("क\u200dष\u3000日本.png", "क\u200dष\u3000日本.png"),
    ],
)
def test_names_cannot_disturb_a_sentence(tmp_path, make_image, name, shown):
    path = make_image(name)
    [source] = list_sources(str(tmp_path)).sources
    assert (source.name, source.path) == (f"{tmp_path}/{shown}", path)
    for other in (f"{path}.none", write_tar(f"{path}.tar.gz", []), write_zip(f"{path}.zip", [])):
        with pytest.raises(UsageError) as caught:
            list_sources(other)
        assert f"{tmp_path}/{shown}" in str(caught.value)


def test_a_damaged_archive_cannot_disturb_a_sentence(tmp_path):
    (tmp_path / "a\n\u202e.zip").write_bytes(b"no zip")
    with pytest.raises(MediaError) as caught:
        list_sources(str(tmp_path / "a\n\u202e.zip"))
    assert "a\\n\\u202e.zip" in str(caught.value)


def test_a_list_keeps_its_order_and_its_missing_lines(tmp_path, make_image, monkeypatch):
    make_image("b/2.png")
    make_image("a/1.png")
    (tmp_path / "x.md").touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.txt").write_text(f"b/2.png\na/1.png\r\n\ngone.png\n{tmp_path}/a/1.png\nb/2.png\nx.md\n")
    listing = list_sources("l.txt")
    assert [source.name for source in listing.sources] == [
        "b/2.png", "a/1.png", "gone.png", f"{tmp_path}/a/1.png", "b/2.png (2)",
    ]  # fmt: skip
    assert problems(listing) == {"gone.png": "does not exist"}
    assert [source.label for source in listing.sources] == ["b", "a", None, "a", "b"]
    assert listing.ignored == 1
    assert len(set(names(listing))) == 5


def test_output_names_never_leave_the_output(tmp_path, make_image, monkeypatch):
    make_image("a.png")
    (tmp_path / "d").mkdir()
    monkeypatch.chdir(tmp_path / "d")
    (tmp_path / "l.lst").write_text(f"../a.png\n{tmp_path}/a.png\n")
    for relative in names(list_sources(str(tmp_path / "l.lst"))):
        assert not relative.startswith("/")
        assert ".." not in relative.split("/")


def test_paths_come_from_standard_input(tmp_path, make_image, monkeypatch):
    path = make_image(b"caf\xe9.png")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(path) + b"\n")))
    [source] = list_sources("-").sources
    assert os.path.samefile(source.path, path)


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path, make_image):
    path = make_image("a.png")
    (tmp_path / "l.txt").write_text(f"{path}\n", encoding="utf-8-sig")
    [source] = list_sources(str(tmp_path / "l.txt")).sources
    assert (source.path, source.problem) == (path, None)


@pytest.mark.parametrize(
    "text", ["a.png\n".encode("utf-16"), "a.png\n".encode("utf-16-be"), b"\xff\xfe", b"a\0b.png\n"]
)
def test_a_list_of_another_encoding_is_refused(tmp_path, monkeypatch, text):
    (tmp_path / "l.txt").write_bytes(text)
    with pytest.raises(UsageError, match=r"l\.txt is UTF-16 or no text at all; expected paths in UTF-8"):
        list_sources(str(tmp_path / "l.txt"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    with pytest.raises(UsageError, match="standard input is UTF-16"):
        list_sources("-")


def test_a_closed_standard_input_is_refused(monkeypatch):
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    for stdin in (None, closed):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UsageError, match="standard input is closed"):
            list_sources("-")


def test_an_unreadable_standard_input_is_refused(monkeypatch, tmp_path):
    with open(tmp_path / "out", "wb") as write_only:
        unreadable = io.TextIOWrapper(io.BufferedReader(io.FileIO(os.dup(write_only.fileno()))))
    monkeypatch.setattr(sys, "stdin", unreadable)
    with pytest.raises(UsageError, match="standard input cannot be read: Bad file descriptor"):
        list_sources("-")


def test_an_unreadable_list_is_refused(tmp_path):
    (tmp_path / "l.txt").symlink_to("l.txt")
    with pytest.raises(UsageError, match=r"l\.txt cannot be read: Too many levels of symbolic links"):
        list_sources(str(tmp_path / "l.txt"))


def test_every_kind_of_still_picture_is_listed_by_its_suffix(tmp_path):
    suffixes = ["png", "apng", "jpg", "JPEG", "jpe", "jfif", "webp", "avif", "gif", "Tif", "bmp", "tga", "qoi"]
    suffixes += ["pbm", "pgm", "ppm", "pnm", "jp2", "j2k", "jpx"]
    for suffix in suffixes:
        (tmp_path / f"a.{suffix}").touch()
    for suffix in ("eps", "pdf", "svg", "heic"):
        (tmp_path / f"a.{suffix}").touch()
    listing = list_sources(str(tmp_path))
    assert names(listing) == sorted(f"a.{suffix}" for suffix in suffixes)
    assert {source.kind for source in listing.sources} == {"image"}
    assert listing.ignored_suffixes == {".eps": 1, ".heic": 1, ".pdf": 1, ".svg": 1}


def test_what_is_ignored_is_said_by_suffix(tmp_path):
    (tmp_path / "a.png").touch()
    for name in ("a.txt", "b.TXT", "c.txt", "x.xml", "none", "two words.of a sentence", "e\n.s\x1bc"):
        (tmp_path / name).touch()
    listing = list_sources(str(tmp_path))
    assert listing.ignored == sum(listing.ignored_suffixes.values()) == 6
    assert describe_ignored(listing) == "6 other files ignored (.txt 2, no suffix 2, .s\\x1bc 1, .xml 1)"
    for number in range(5):
        (tmp_path / f"x.{number}").touch()
    assert describe_ignored(list_sources(str(tmp_path))).endswith("(.txt 2, no suffix 2, .0 1, .1 1, .2 1, others 4)")


IMAGE = b"\x89PNG\r\n\x1a\n"
CLIP = b"\0\0\0\x20ftypisom"


def test_a_file_of_unknown_suffix_that_is_named_is_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, head in (
        ("picture", IMAGE),
        ("clip.part", CLIP),
        ("page.html", b"<html>"),
        ("l.txt", b"picture\nclip.part\npage.html\n"),
    ):
        (tmp_path / name).write_bytes(head)
    for name, kind in (("picture", "image"), ("clip.part", "clip")):
        [source] = list_sources(name).sources
        assert (source.kind, source.relative, source.problem) == (kind, name, None)
    listing = list_sources("l.txt")
    assert [(source.relative, source.kind) for source in listing.sources] == [
        ("picture", "image"),
        ("clip.part", "clip"),
    ]
    assert listing.ignored_suffixes == {".html": 1}
    with pytest.raises(UsageError, match="of no known kind"):
        list_sources("page.html")
    # In a directory the suffix decides.
    (tmp_path / "a.png").touch()
    assert names(list_sources(".")) == ["a.png"]


@pytest.mark.parametrize("name", ["fifo", "fifo.part", "fifo.txt"])
def test_a_pipe_that_is_no_media_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(UsageError, match=r"of no known kind|is a named pipe"):
        list_sources(str(tmp_path / name))
    (tmp_path / "l.txt").write_text(f"{tmp_path / name}\n")
    assert (
        "named pipe" in problems(list_sources(str(tmp_path / "l.txt")))[names(list_sources(str(tmp_path / "l.txt")))[0]]
    )


def test_only_line_feeds_end_the_lines_of_a_list(tmp_path, make_image, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [make_image(name) for name in ("a\x0bb.png", "c\x0cd.png", "e\x1c\x85f.png", "g\rh.png", "\u2028i.png")]
    (tmp_path / "l.txt").write_bytes("\r\n".join(paths).encode())
    listing = list_sources("l.txt")
    assert [source.path for source in listing.sources] == paths
    assert not problems(listing)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_dots_in_the_path_of_a_member_are_no_hidden_names(tmp_path, write):
    suffix = write.__name__[-3:]
    path = write(tmp_path / f"x.{suffix}", ["cat/./1.png", "././dog/2.png", ".//dog/3.png", "./.git/4.png", "a/.5.png"])
    listing = list_sources(path)
    assert [(source.relative, source.label) for source in listing.sources] == [
        ("cat/1.png", "cat"), ("dog/2.png", "dog"), ("dog/3.png", "dog"),
    ]  # fmt: skip
    assert names(list_sources(f"{path}/./dog/")) == ["2.png", "3.png"]
    assert names(list_sources(f"{path}/cat/1.png")) == ["1.png"]


def test_classes_of_a_zip_of_windows_are_its_folders(tmp_path):
    listing = list_sources(write_zip(tmp_path / "x.zip", ["cat\\1.png", "dog\\1.png", "dog\\read.me"]))
    assert [(source.relative, source.label) for source in listing.sources] == [
        ("cat/1.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    assert listing.ignored_suffixes == {".me": 1}


def test_what_cannot_be_listed_of_an_archive_is_a_failed_source(tmp_path):
    path = write_tar(tmp_path / "x.tar", ["cat/a.png"])
    with open(path, "ab") as file:
        file.write(b"garbage" * 200)
    for src in (path, f"{path}/cat"):
        listing = list_sources(src)
        assert len(listing.sources) == 2
        assert len(problems(listing)) == 1


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_members_of_an_archive_are_listed(tmp_path, write):
    suffix = write.__name__[-3:]
    path = write(tmp_path / f"x.{suffix}", ["b/2.png", "a/1.mp4", "top.jpg", "read.me", "__MACOSX/z.png"])
    listing = list_sources(path)
    assert names(listing) == ["a/1.mp4", "b/2.png", "top.jpg"]
    assert listing.sources[0].name == f"{path}/a/1.mp4"
    assert [source.label for source in listing.sources] == ["a", "b", None]
    assert listing.ignored == 1
    assert names(list_sources(f"{path}/b")) == ["2.png"]
    assert names(list_sources(f"{path}/b/2.png")) == ["2.png"]
    with pytest.raises(UsageError, match="holds nothing"):
        list_sources(f"{path}/none")


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_members_pointing_outside_are_problems(tmp_path, write):
    suffix = write.__name__[-3:]
    path = write(tmp_path / f"x.{suffix}", ["../evil.png", "/abs.png", "a/../../b.png", "fine.png"])
    listing = list_sources(path)
    assert sum(source.problem is None for source in listing.sources) == 1
    assert len(problems(listing)) == 3
    assert all(".." not in relative.split("/") and relative[0] != "/" for relative in names(listing))


def test_links_in_a_tar_are_problems(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert "is a link" in problems(list_sources(str(tmp_path / "x.tar")))["link.png"]


def test_members_of_one_name_are_kept_apart(tmp_path):
    path = write_tar(tmp_path / "x.tar", ["a.png", "a.png"])
    listing = list_sources(path)
    assert len({source.name for source in listing.sources}) == 2
    assert len(set(names(listing))) == 2


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_a_damaged_archive_is_one_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing like it" * 100)
    with pytest.raises(MediaError, match="is damaged or no"):
        list_sources(str(tmp_path / name))


def test_a_tar_cut_short_is_one_error(tmp_path):
    path = write_tar(tmp_path / "x.tar", ["a.png", "b.png"])
    os.truncate(path, 1025)
    with pytest.raises(MediaError, match="is damaged"):
        list_sources(path)


@pytest.mark.parametrize("name", ["what.xyz", "x.tar.gz"])
def test_files_of_other_kinds_are_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UsageError):
        list_sources(str(tmp_path / name))


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        list_sources(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="holds nothing and no media"):
        list_sources(str(tmp_path))
    (tmp_path / "a.md").touch()
    with pytest.raises(UsageError, match=r"1 files of other kinds \(\.md\)"):
        list_sources(str(tmp_path))


def class_names(folder):
    return sorted_names({s.label for s in list_sources(str(folder)).sources if s.label is not None})


def test_numeric_classes_sort_by_value(tmp_path, make_image):
    for name in ("10/a.png", "9/a.png", "2/a.png", "top.png"):
        make_image(name)
    assert class_names(tmp_path) == ["2", "9", "10"]
    make_image("x/a.png")
    assert class_names(tmp_path) == ["10", "2", "9", "x"]
