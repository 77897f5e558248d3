"""URLs are refused where paths are expected, in whatever argument they come."""

import re
from pathlib import Path

import pytest

from grncli.runtime.errors import UsageError
from grncli.runtime.urls import is_url, refuse_urls

URLS = [
    "s3://bucket/o.zarr",
    "file:///tmp/x",
    "https://example.com/a.zip",
    "gs://b",
    "simplecache::s3://b/x",
    "A+b-c.1://",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("wrap", [str, Path, lambda url: [str(url)], lambda url: ["fine", Path(url)]])
def test_a_url_is_refused(url, wrap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^{re.escape(url.split(':')[0])}.*: is a URL, expected a path; "):
        refuse_urls(print, {"a": None, "b": 5, "c": wrap(url)})


def test_a_url_is_shown_as_it_was_given():
    with pytest.raises(UsageError, match=r"^s3://bucket/o\.zarr: "):
        refuse_urls(print, {"out": Path("s3://bucket/o.zarr")})


@pytest.mark.parametrize(
    "text", ["photos", "/a/b", "a:b", "c:/photos", "training.steps=5", "0:16", "x/https://y", "1:8", "-"]
)
def test_other_arguments_are_taken(text):
    assert not is_url(text)
    refuse_urls(print, {"a": text, "b": Path(text), "c": [text]})


def test_what_is_there_under_such_a_name_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "bucket").mkdir(parents=True)
    refuse_urls(print, {"a": "s3://bucket", "b": Path("s3://bucket")})
    with pytest.raises(UsageError, match="s3://bucket/new"):
        refuse_urls(print, {"out": Path("s3://bucket/new")})
