"""The cache of what was read from far away: bounded, shared by processes, and no obstacle where it cannot be."""

import errno
import os
import threading

import pytest

from grncli.runtime import object_cache
from grncli.runtime.errors import RemoteError
from grncli.runtime.object_cache import ObjectCache


def content(cache, name):
    entry = cache.open(name)
    if entry is None:
        return None
    with os.fdopen(entry[0], "rb") as file:
        return file.read(entry[1])


def test_entries_are_kept(tmp_path):
    cache = ObjectCache(tmp_path / "cache", 1000)
    assert cache.open("a") is None
    cache.put("a", b"123")
    assert content(cache, "a") == content(ObjectCache(tmp_path / "cache", 1000), "a") == b"123"


def test_a_damaged_entry_is_none(tmp_path):
    cache = ObjectCache(tmp_path, 1000)
    for damaged in (b"", b"12", b"1234567", bytes(7)):
        cache.put("a", b"123")
        (tmp_path / "a").write_bytes(damaged)
        assert cache.open("a") is None
        assert not list(tmp_path.iterdir())


def test_what_was_not_used_longest_goes_first(tmp_path):
    cache = ObjectCache(tmp_path, 1000)
    for number in range(8):
        cache.put(str(number), bytes(100))
        os.utime(tmp_path / str(number), (number, number))
    os.close(cache.open("0")[0])
    cache.shrink(416)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "6", "7"]


def test_the_limit_holds_however_much_is_written(tmp_path):
    cache = ObjectCache(tmp_path, 1000)
    for number in range(200):
        cache.put(str(number), bytes(30))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1200


def test_an_open_entry_stays_readable_when_it_goes(tmp_path):
    cache = ObjectCache(tmp_path, 1000)
    cache.put("a", b"123")
    fd, _ = cache.open("a")
    cache.shrink(0)
    assert os.read(fd, 3) == b"123"
    os.close(fd)


def test_a_full_disk_makes_room(tmp_path, monkeypatch):
    cache = ObjectCache(tmp_path, 10_000)
    for number in range(10):
        cache.put(str(number), bytes(100))
    write = object_cache.write_all

    def fails_while_full(fd, data, offset):
        if len(list(tmp_path.iterdir())) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data, offset)

    monkeypatch.setattr(object_cache, "write_all", fails_while_full)
    cache.put("new", b"123")
    assert content(cache, "new") == b"123"


def test_a_disk_that_stays_full_ends_no_work(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = ObjectCache(tmp_path, 1000)
    monkeypatch.setattr(object_cache, "open_file", full)
    with cache.fetching("a"):
        cache.put("a", b"123")
    monkeypatch.undo()
    assert cache.open("a") is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    cache = ObjectCache(tmp_path / "file" / "cache", 1000)
    with pytest.raises(RemoteError, match=r"file/cache: cannot be used as the cache of .*XDG_CACHE_HOME, or keep"):
        with cache.fetching("a"):
            pass


def test_what_several_want_is_fetched_once(tmp_path):
    fetched, got = [], []

    def want():
        cache = ObjectCache(tmp_path, 1000)
        with cache.fetching("a"):
            if content(cache, "a") is None:
                fetched.append(1)
                cache.put("a", b"123")
        got.append(content(cache, "a"))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(fetched), got) == (1, [b"123"] * 8)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
