"""Several SRC, shards and patterns list the same keys as one SRC, and never two sources under one."""

import errno
import io
import os
import sys
import tarfile

import pytest

from grncli.media import archives
from grncli.media.label_forms import parse_labels
from grncli.media.listing import ListingOptions, list_sources
from grncli.media.sources import describe_arguments
from grncli.runtime.errors import MediaError, UsageError

PREFIXED = ListingOptions(prefixed=True)


def tarred(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))
    return str(path)


@pytest.fixture
def shards(tmp_path):
    """Three shards of a picture in a class directory and one outside, beside a picture of the folder."""
    for number in range(3):
        tarred(tmp_path / f"shards/x-{number:03}.tar", f"{number}b.jpg", f"{number}b.txt", f"cat/{number}a.jpg")
    (tmp_path / "shards/z.png").touch()
    return tmp_path / "shards"


def keys(listing):
    return [source.relative for source in listing.sources]


IN_SHARDS = ["0b.jpg", "cat/0a.jpg", "1b.jpg", "cat/1a.jpg", "2b.jpg", "cat/2a.jpg"]


def test_one_tar_several_and_a_pattern_give_the_same_keys(shards):
    assert keys(list_sources([f"{shards}/x-00{number}.tar" for number in range(3)])) == IN_SHARDS
    assert keys(list_sources(f"{shards}/x-{{000..002}}.tar")) == IN_SHARDS
    assert keys(list_sources(f"{shards}/x-{{000,001,002}}.tar")) == IN_SHARDS
    assert keys(list_sources(f"{shards}/x-000.tar")) == IN_SHARDS[:2]
    assert keys(list_sources(f"{shards}/x-{{001..002}}.tar/cat")) == ["1a.jpg", "2a.jpg"]


def test_tars_in_a_directory_are_shards_behind_its_own_files(shards):
    listing = list_sources(str(shards))
    assert keys(listing) == ["z.png", *IN_SHARDS]
    assert [bool(source.beside) for source in listing.sources] == [False] + [True, False] * 3
    assert listing.ignored == 0


def test_several_sources_keep_their_order(tmp_path, shards):
    (tmp_path / "list.txt").write_text(f"{shards}/z.png\n")
    listing = list_sources([str(tmp_path / "list.txt"), f"{shards}/x-001.tar", f"{shards}/x-000.tar"])
    assert [os.path.basename(key) for key in keys(listing)] == ["z.png", "1b.jpg", "1a.jpg", "0b.jpg", "0a.jpg"]


def test_two_sources_of_one_key_are_refused_and_told_apart_by_a_prefix(tmp_path):
    first, second = tarred(tmp_path / "a.tar", "cat/1.jpg"), tarred(tmp_path / "b.tar", "cat/1.jpg")
    for src in ([first, second], str(tmp_path), f"{tmp_path}/{{a,b}}.tar"):
        with pytest.raises(UsageError) as caught:
            list_sources(src)
        assert f"{first}/cat/1.jpg and {second}/cat/1.jpg have one key, cat/1.jpg" in str(caught.value)
        assert "--prefix-keys" in str(caught.value)
    assert keys(list_sources([first, second], PREFIXED)) == ["a/cat/1.jpg", "b/cat/1.jpg"]
    assert keys(list_sources(str(tmp_path), PREFIXED)) == [f"{tmp_path.name}/{name}/cat/1.jpg" for name in "ab"]
    with pytest.raises(UsageError, match="rename one of the two"):
        list_sources([first, first], PREFIXED)


@pytest.mark.parametrize("options", [ListingOptions(), PREFIXED])
@pytest.mark.parametrize(
    ("labels", "expected"), [("dirs", {None, "cat"}), ("dirs:1", {None, "cat"}), ("dirs:-2", {None})]
)
def test_no_class_is_the_name_of_a_shard_or_a_prefix(shards, options, labels, expected):
    (shards / "deep").mkdir()
    tarred(shards / "deep/broken.tar", "cat/9.jpg")
    os.truncate(shards / "deep/broken.tar", 700)
    level = parse_labels(labels)
    assert {level.of(source) for source in list_sources(str(shards), options).sources} == expected


def test_a_prefix_is_the_name_of_a_folder_however_it_is_written(shards, monkeypatch):
    monkeypatch.chdir(shards)
    (shards / "x.y").mkdir()
    (shards / "x.y/1.png").touch()
    for src in (".", "./", "../shards", str(shards)):
        assert keys(list_sources(src, PREFIXED))[0] == "shards/x.y/1.png"
    for src in ("x.y", "./x.y//"):
        assert keys(list_sources(src, PREFIXED)) == ["x.y/1.png"]
    assert keys(list_sources("z.png", PREFIXED)) == ["z/z.png"]


def test_a_damaged_shard_of_a_directory_is_one_failed_source(shards):
    os.truncate(shards / "x-001.tar", 512 + 512 + 512 + 10)
    listing = list_sources(str(shards))
    assert [key for key in keys(listing) if key not in IN_SHARDS] == ["z.png", "x-001.tar"]
    [problem] = [source.problem for source in listing.sources if source.problem]
    assert "x-001.tar' is damaged or no tar archive" in problem
    assert "1b.jpg" in keys(listing)
    with pytest.raises(MediaError, match=r"x-001\.tar"):
        list_sources(f"{shards}/x-{{000..002}}.tar")


def test_a_tar_of_a_directory_that_cannot_be_opened_is_one_failed_source(shards, monkeypatch):
    (shards / "cat").mkdir()
    (shards / "cat/gone.tar").symlink_to("nowhere")
    os.mkfifo(shards / "pipe.tar")
    listed = archives.members

    def members(path):
        if path.endswith("x-001.tar"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(archives, "members", members)
    problems = {source.relative: source for source in list_sources(str(shards)).sources if source.problem}
    assert {key: source.problem for key, source in problems.items()} == {
        "cat/gone.tar": "is a link to a file that does not exist",
        "pipe.tar": "is a named pipe, socket or device, not a file",
        "x-001.tar": "cannot be read: Permission denied",
    }
    assert {source.label for source in problems.values()} == {None}


def test_a_pattern_names_what_is_missing(shards):
    with pytest.raises(UsageError, match=r"9\}\.tar matches nothing: .*y-0\.tar, .*y-2\.tar, \.\.\. do not exist"):
        list_sources(f"{shards}/y-{{0..9}}.tar")
    with pytest.raises(UsageError, match=r"2 of 5 are missing: .*x-003\.tar, .*x-004\.tar;"):
        list_sources(f"{shards}/x-{{000..004}}.tar")
    (shards / "x-001.tar").unlink()
    with pytest.raises(UsageError, match=r"1 of 3 is missing: .*x-001\.tar;"):
        list_sources(f"{shards}/x-{{000..002}}.tar")
    with pytest.raises(UsageError, match="its numbers run backwards"):
        list_sources(f"{shards}/x-{{002..000}}.tar")
    with pytest.raises(UsageError, match="more than 1,000,000 paths"):
        list_sources(f"{shards}/x-{{0..9999999}}.tar")


def test_a_file_may_have_the_name_of_a_pattern(tmp_path):
    (tmp_path / "{a,b}.png").touch()
    assert keys(list_sources(f"{tmp_path}/{{a,b}}.png")) == ["{a,b}.png"]


def test_numbers_of_a_pattern_are_padded_as_a_shell_does(tmp_path):
    for name in ("8.png", "9.png", "10.png", "08.jpg", "09.jpg", "10.jpg"):
        (tmp_path / name).touch()
    assert keys(list_sources(f"{tmp_path}/{{8..10}}.png")) == ["8.png", "9.png", "10.png"]
    assert keys(list_sources(f"{tmp_path}/{{08..10}}.jpg")) == ["08.jpg", "09.jpg", "10.jpg"]


def test_the_same_file_from_two_sources_is_told_apart_in_words(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.png").touch()
    (tmp_path / "l.txt").write_text("a/1.png\n")
    monkeypatch.chdir(tmp_path)
    listing = list_sources(["a", "l.txt"])
    assert [(source.name, source.relative) for source in listing.sources] == [
        ("a/1.png", "1.png"), ("a/1.png (2)", "a/1.2.png"),
    ]  # fmt: skip


def test_lists_take_zero_bytes_and_comments_where_asked_for(tmp_path, monkeypatch):
    names = ["a.png", "# b.png", "new\nline.png"]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l.txt").write_text("\0".join(names) + "\0")
    assert [each.path for each in list_sources("l.txt", ListingOptions(null=True)).sources] == names
    assert [each.path for each in list_sources("l.txt", ListingOptions(null=True, comments=True)).sources] == names[::2]
    with pytest.raises(UsageError, match="--null reads paths that end with a zero byte"):
        list_sources("l.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# my files\na.png\n")))
    assert [each.path for each in list_sources("-", ListingOptions(comments=True)).sources] == ["a.png"]


def test_several_arguments_are_named_in_a_sentence():
    assert describe_arguments("a b/") == "a b/"
    assert describe_arguments(["a", "b", "c", "d\n", "e"]) == "a, b, c and 2 more"
