"""Requests to servers: what may pass is tried again, what stays is said in a sentence, and nothing hangs."""

import multiprocessing
import pickle
import socket
import sys
import time
from pathlib import Path

import pytest

from grncli.runtime import remote_objects
from grncli.runtime.errors import RemoteError, UsageError
from grncli.runtime.remote_objects import Patience, RemoteObjects

sys.path.append(str(Path(__file__).parents[1] / "store"))  # served_files.py

from served_files import served

pytest.importorskip("aiohttp")

SHORT = Patience(tries=3, pause=0.01, silence=0.3, longest=1.0)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/digits").write_bytes(b"0123456789")
    (tmp_path / "a/empty").write_bytes(b"")
    with served(tmp_path) as server:
        yield server


@pytest.fixture
def objects(server):
    return RemoteObjects(f"{server.url}/a/", SHORT)


def test_whole_objects_and_pieces_are_read(objects):
    assert objects.read("digits") == b"0123456789"
    assert objects.read("digits", 2, 5) == b"234"
    assert objects.read("digits", 8, 20) == b"89"
    assert objects.read("empty") == b""
    assert (objects.size("digits"), objects.size("empty"), objects.size("none")) == (10, 0, None)
    assert pickle.loads(pickle.dumps(objects)).read("digits", 0, 1) == b"0"


def test_a_missing_object_is_asked_for_once(objects, server):
    with pytest.raises(FileNotFoundError):
        objects.read("none")
    assert server.asked["a/none"] == 1


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(objects, server, status):
    server.statuses["a/digits"] = [status, status]
    assert objects.read("digits") == b"0123456789"
    assert server.asked["a/digits"] == 3


def test_what_does_not_pass_is_said_after_the_last_attempt(objects, server):
    server.statuses["a/digits"] = [503] * 9
    with pytest.raises(RemoteError, match=r"^http.*/a/digits: cannot be reached \(503.*\), tried 3 times in . s; "):
        objects.read("digits")
    assert server.asked["a/digits"] == 3


@pytest.mark.parametrize("status", [401, 403])
def test_denied_access_is_said_at_once(objects, server, status):
    server.statuses["a/digits"] = [status] * 9
    with pytest.raises(RemoteError, match=r"/a/digits: access is denied .* give credentials"):
        objects.read("digits")
    assert server.asked["a/digits"] == 1


def test_where_something_was_read_denied_objects_are_missing_ones(objects, server):
    """A bucket that may be read and not listed says so of objects that are not there."""
    objects.read("digits")
    server.statuses["a/none"] = [403]
    with pytest.raises(FileNotFoundError):
        objects.read("none")


def test_a_silent_server_is_given_up(objects, server):
    server.silent.add("a/digits")
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"cannot be reached .*, tried 3 times in . s"):
        objects.read("digits")
    assert time.monotonic() - began < 60


def test_no_server_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RemoteError, match=f"^http://127.0.0.1:{port}/x: cannot be reached"):
        RemoteObjects(f"http://127.0.0.1:{port}", SHORT).read("x")


def test_a_web_server_need_not_list(objects):
    assert objects.list("") is None
    with pytest.raises(RemoteError, match="shows no lists of files"):
        objects.walk("")


def test_other_schemes_are_read_written_and_listed():
    objects = RemoteObjects("memory://remote-objects/a", SHORT)
    objects.write("b/c", b"123")
    objects.write_pieces("b/d", lambda: iter([b"12", b"3"]))
    assert objects.read("b/d", 1, 9) == b"23"
    assert (objects.list(""), objects.list("b"), objects.list("none")) == (["b"], ["c", "d"], [])
    assert {name: state.size for name, state in objects.walk("b").items()} == {"b/c": 3, "b/d": 3}
    objects.remove("b/c")
    assert objects.size("b/c") is None


@pytest.mark.parametrize("url", ["https://me:secret@example.com/a", "https://secret@example.com/a?b"])
def test_a_password_in_an_address_is_refused_and_not_shown(url):
    with pytest.raises(UsageError, match=r"^https://example.com/a: was given with a user or password; .*netrc$"):
        RemoteObjects(url)
    RemoteObjects("s3://bucket/me@home?")


def test_a_query_is_refused_and_not_shown():
    with pytest.raises(UsageError, match=r"^https://example.com/a: was given with a query \(\?...\), expected"):
        RemoteObjects("https://example.com/a?signature=secret")


def test_large_objects_have_longer_to_leave(monkeypatch):
    limits = []
    monkeypatch.setattr(remote_objects, "_call", lambda *_, longest: limits.append(longest))
    objects = RemoteObjects("memory://remote-objects/slow", SHORT)
    for size in (1, 64 << 20):
        objects.write("a", bytes(size))
    assert limits == pytest.approx([SHORT.longest, SHORT.longest + 1024], abs=0.1)


def test_an_unknown_scheme_is_said():
    with pytest.raises(UsageError, match=r"^nothing://a: cannot be opened .*nothing"):
        RemoteObjects("nothing://a").read("b")


def test_a_server_that_is_connected_to_first_is_said():
    with pytest.raises(RemoteError, match=r"^ftp://127.0.0.1:1/x: cannot be opened \(.*refused\); check the network"):
        RemoteObjects("ftp://127.0.0.1:1/x").read("b")


def test_a_scheme_without_its_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"^gs://bucket/a: .* install grncli\[gcs\]"):
        RemoteObjects("gs://bucket/a").read("b")
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(UsageError, match=r"^az://bucket/a: .* install the fsspec package of az$"):
        RemoteObjects("az://bucket/a").read("b")


def _read(objects, queue):
    queue.put(objects.read("digits"))


def test_a_forked_process_opens_its_own_connections(objects):
    objects.read("digits")
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read, args=(objects, queue))
    child.start()
    assert queue.get(timeout=60) == b"0123456789"
    child.join()


@pytest.mark.parametrize(("code", "expected"), [("AccessDenied", FileNotFoundError), ("ExpiredToken", RemoteError)])
def test_credentials_that_lapse_make_nothing_seem_missing(code, expected, monkeypatch):
    """What S3 answers for an object that is not there in a bucket that may not be listed, and to an old token."""
    objects = RemoteObjects("memory://lapsed", SHORT)
    objects.write("a", b"1")
    objects.read("a")

    def answer(*_, **__):
        cause = Exception()
        cause.response = {"Error": {"Code": code}}
        raise PermissionError(code) from cause

    monkeypatch.setattr(type(objects._files()[0]), "cat_file", answer)
    with pytest.raises(expected):
        objects.read("a")
