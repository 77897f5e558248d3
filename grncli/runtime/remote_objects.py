"""Objects below a URL, read and written through fsspec: attempts that end, what may pass tried again, plain sentences.

Whole small pieces are read, never open files: each can be tried again by itself, and threads share one connection pool.
"""

import asyncio
import os
import random
import re
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from grncli.runtime.errors import RemoteError, UsageError
from grncli.runtime.text import one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_EXTRAS = {"s3": "remote", "s3a": "remote", "http": "remote", "https": "remote", "gs": "gcs", "gcs": "gcs"}
_UNLISTED = ("http", "https")  # servers that show no folders, or pages for people
_REFUSED = ("Credential", "Token", "Profile", "Unauthorized", "Forbidden")  # in names of errors that are no OSError
_NO_SUCH_RANGE = ("InvalidRange", "not satisfiable", "Not Satisfiable")
_OURS = (TypeError, ValueError, KeyError, AttributeError, NotImplementedError)  # faults, which no retry mends
_READING = ("cat_file", "info")  # methods that a bucket which may not be listed denies for missing objects
_LISTING = ("ls", "find")
_VERSIONS = ("ETag", "etag", "generation")  # as file systems call it; times are too coarse
_SHOWN = 160  # characters of a server's message
_SLOWEST = 1 << 16  # bytes a second at which what is sent may leave
_PASSWORD = re.compile("//[^/@]+@")


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Parameters
    ----------
    tries : attempts at one request
    pause : seconds before the second one, twice as many before each further one
    silence : seconds without a byte after which an attempt has failed
    longest : seconds after which any attempt has; a request is for a few MiB
    """

    tries: int = 5
    pause: float = 0.5
    silence: float = 20.0
    longest: float = 180.0


class RemoteObjects:
    """What lies below a URL of any scheme that fsspec knows; can be pickled, and used after a fork.

    Raises
    ------
    UsageError
        For an address of the web with a password or query; by the first request, if no installed package knows the
        scheme.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        _refuse_secrets(url)
        self.url = url.rstrip("/")
        self._patience = patience or Patience()
        self._opened: tuple[int, AbstractFileSystem, str] | None = None
        self._readable = False  # whether anything was read: a bucket that may not be listed calls missing ones denied

    def where(self, name: str) -> str:
        """What messages call an object, or with an empty name the URL."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes of an object, or those from ``start`` to ``end``; fewer where it ends before.

        Raises
        ------
        FileNotFoundError
            If there is no such object.
        RemoteError
            If it cannot be read.
        """
        try:
            data = self._asked("cat_file", name, start=start, end=end)
        except _NoSuchRangeError:
            return b""
        self._readable = True
        if start is not None and end is not None and len(data) > end - start:
            return bytes(data[start:end])  # of a server that knows no ranges and sent all
        return bytes(data)

    def size(self, name: str) -> int | None:
        """Bytes of an object, None where there is none; RemoteError as `read`."""
        try:
            about = self._asked("info", name)
        except FileNotFoundError:
            return None
        return None if about.get("type") == "directory" else about.get("size")

    def list(self, folder: str) -> list[str] | None:
        """Names below a folder, in order; None where the server lists nothing; RemoteError as `read`."""
        if self.url.split("://")[0] in _UNLISTED:
            return None
        try:
            found = self._asked("ls", folder, detail=False)
        except FileNotFoundError:
            return []
        except _DeniedError:
            return None
        return sorted({str(path).rstrip("/").rpartition("/")[2] for path in found})

    def walk(self, folder: str) -> dict[str, "ObjectState"]:
        """Every object below a folder, by its name; RemoteError as `read`, or where the server lists nothing."""
        if self.url.split("://")[0] in _UNLISTED:
            raise RemoteError(f"{self.url}: its server shows no lists of files; expected a bucket, such as s3://")
        _, root = self._files()
        try:
            found = self._asked("find", folder, detail=True)
        except FileNotFoundError:
            return {}
        inner = root.strip("/") + "/"
        return {path.strip("/").removeprefix(inner): _state(about) for path, about in found.items()}

    def state(self, name: str) -> "ObjectState | None":
        """What the server says of an object, None where there is none; RemoteError as `read`."""
        try:
            return _state(self._asked("info", name))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put an object in place, as a whole; RemoteError as `read`."""
        longest = self._patience.longest + len(data) / _SLOWEST
        self._tried("pipe_file", name, lambda files, path: _call(files, "pipe_file", path, data, longest=longest))

    def write_pieces(self, name: str, pieces: Callable[[], Iterator[bytes]]) -> None:
        """As `write`, of an object that is too large for memory; ``pieces`` may be called again."""

        def put(files: "AbstractFileSystem", path: str) -> None:
            with files.open(path, "wb") as file:
                for piece in pieces():
                    file.write(piece)

        self._tried("write", name, put)

    def remove(self, name: str) -> None:
        """Take an object away; RemoteError as `read`."""
        self._asked("rm_file", name)

    def _asked(self, method: str, name: str, **kwargs: Any) -> Any:
        longest = self._patience.longest
        return self._tried(method, name, lambda files, path: _call(files, method, path, longest=longest, **kwargs))

    def _tried(self, method: str, name: str, request: "Callable[[AbstractFileSystem, str], Any]") -> Any:
        """One request, tried again while that may help."""
        files, root = self._files()
        path = f"{root.rstrip('/')}/{name}" if name else root
        began, pause, patience = time.monotonic(), self._patience.pause, self._patience
        for attempt in range(1, patience.tries + 1):
            try:
                return request(files, path)
            except Exception as error:
                self._raise_lasting(method, name, error)
                if attempt == patience.tries:
                    raise RemoteError(
                        f"{self.where(name)}: cannot be reached ({_reason(error)}), tried {attempt} times in "
                        f"{time.monotonic() - began:.0f} s; check the network and the URL, and run the same command "
                        "again"
                    ) from None
            time.sleep(pause * random.uniform(0.75, 1.25))
            pause *= 2
        raise AssertionError("unreachable")

    def _raise_lasting(self, method: str, name: str, error: Exception) -> None:
        """Raise what another attempt would not change."""
        where, status = self.where(name), getattr(error, "status", None)
        reads = method in _READING or method in _LISTING
        if isinstance(error, FileNotFoundError | IsADirectoryError) or status in (404, 410):
            if not reads:
                raise RemoteError(f"{where}: cannot be written (there is no such bucket); make it first") from None
            raise FileNotFoundError(2, "no such object", where) from None
        if status == 416 or any(sign in str(error) for sign in _NO_SUCH_RANGE):
            raise _NoSuchRangeError(where) from None
        if self._readable and method in _READING and _may_be_missing(error):
            raise FileNotFoundError(2, "no such object, or one that may not be read", where) from None
        if isinstance(error, PermissionError) or status in (401, 403) or _is_refusal(error):
            public = ", or for a public bucket set FSSPEC_S3_ANON=true" if reads else ""
            raise _DeniedError(
                f"{where}: access is denied ({_reason(error)}); give credentials that may "
                f"{'read' if reads else 'write'} it{public}"
            ) from None
        if isinstance(error, UsageError | RemoteError):
            raise error
        if isinstance(error, _OURS) or (status and 400 <= status < 500 and status not in (408, 429)):
            raise RemoteError(
                f"{where}: cannot be {'read' if reads else 'written'} ({_reason(error)}); check the URL"
            ) from None

    def _files(self) -> "tuple[AbstractFileSystem, str]":
        """The file system and the path of the URL in it, opened anew in a forked process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), *_open(self.url, self._patience)
        return self._opened[1:]

    def __reduce__(self) -> "tuple[type[RemoteObjects], tuple[str, Patience]]":
        return RemoteObjects, (self.url, self._patience)


class ObjectState(NamedTuple):
    """What is known of an object.

    Attributes
    ----------
    size : bytes
    md5 : what its server calls their MD5, in hexadecimal; None where it says none
    version : what changes when the object does; empty where the server says nothing of the kind
    """

    size: int
    md5: str | None = None
    version: str = ""


class _NoSuchRangeError(Exception):
    """What was asked for begins behind the end of the object."""


class _DeniedError(RemoteError):
    """What may not be done with these credentials."""


def _may_be_missing(error: Exception) -> bool:
    """Whether access is denied as to what is not there, by a server that does not tell; not as to a lapsed key."""
    answer = getattr(error.__cause__, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return getattr(error, "status", None) == 403 or code in ("403", "AccessDenied")


def _is_refusal(error: Exception) -> bool:
    return any(sign in type(error).__name__ for sign in _REFUSED)


def _refuse_secrets(url: str) -> None:
    """UsageError for what belongs to a single file, or would stand in messages and records; neither is shown."""
    if url.split("://")[0] not in _UNLISTED:
        return
    place, query, _ = url.partition("?")
    shown = _PASSWORD.sub("//", place)
    if shown != place:
        raise UsageError(f"{shown}: was given with a user or password; leave them out, and put them into ~/.netrc")
    if query:
        raise UsageError(
            f"{shown}: was given with a query (?...), expected the URL of a folder; leave it out, or use the scheme of "
            "the bucket, such as s3://, with credentials"
        )


def _open(url: str, patience: Patience) -> "tuple[AbstractFileSystem, str]":
    scheme = url.split("://")[0]
    try:
        from fsspec.core import url_to_fs  # only here: its import takes as long as opening a store

        return url_to_fs(url, **_options(scheme, patience))
    except ImportError as error:
        remedy = f"grncli[{_EXTRAS[scheme]}]" if scheme in _EXTRAS else f"the fsspec package of {scheme}"
        raise UsageError(
            f"{url}: {scheme}:// needs a package that is not installed ({one_line(error, _SHOWN)}); install {remedy}"
        ) from None
    except ValueError as error:
        raise UsageError(f"{url}: cannot be opened ({one_line(error, _SHOWN)}); check the URL") from None
    except Exception as error:  # of packages that connect already here
        raise RemoteError(f"{url}: cannot be opened ({_reason(error)}); check the network and the URL") from None


def _state(about: dict[str, Any]) -> ObjectState:
    tag = str(about.get("ETag", "")).strip('"')  # of S3: the MD5 of what came in one piece and is not encrypted
    md5 = tag if re.fullmatch("[0-9a-f]{32}", tag) else None
    if "md5Hash" in about:  # of Google's storage
        md5 = b64decode(about["md5Hash"]).hex()
    said = (str(about[name]) for name in _VERSIONS if about.get(name))
    return ObjectState(int(about.get("size") or 0), md5, next(said, ""))


def _options(scheme: str, patience: Patience) -> dict[str, Any]:
    """Options of fsspec's file systems: time limits, and no lists of files that go stale."""
    if scheme in _UNLISTED:
        from aiohttp import ClientTimeout

        timeout = ClientTimeout(total=None, sock_connect=patience.silence, sock_read=patience.silence)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}, "use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": patience.silence, "read_timeout": patience.silence}
        # One attempt each: those of this module are the only ones.
        return {"config_kwargs": {**limits, "retries": {"total_max_attempts": 1}}, "use_listings_cache": False}
    return {}


def _call(files: "AbstractFileSystem", method: str, *args: Any, longest: float, **kwargs: Any) -> Any:
    """A method of a file system; of an asynchronous one ended after ``longest`` seconds."""
    if not files.async_impl:
        return getattr(files, method)(*args, **kwargs)
    from fsspec.asyn import sync

    if hasattr(files, "retries"):
        files.retries = 1
    if method == "find":  # many requests
        return files.find(*args, **kwargs)
    return sync(files.loop, _within, getattr(files, f"_{method}"), longest, args, kwargs)


async def _within(call: Callable[..., Any], longest: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return await asyncio.wait_for(call(*args, **kwargs), longest)


def _reason(error: Exception) -> str:
    text = one_line(error, _SHOWN)
    return text if text else "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
