"""A folder behind a web server that shows no lists of files, and that can be told to behave badly."""

import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FileServer:
    """Serves files below ``folder`` with ranges.

    Attributes
    ----------
    url : of the folder
    asked : how often each file was asked for with GET
    statuses : of a file, what the next requests are answered with instead
    silent : files of which nothing is ever sent
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.statuses: dict[str, list[int]] = {}
        self.silent: set[str] = set()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.answer(body=True)

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def answer(self, *, body: bool) -> None:
                name = self.path.lstrip("/")
                if body:
                    outer.asked[name] += 1
                if name in outer.silent:
                    outer.released.wait(60)
                    return
                path = outer.folder / name
                data, status = (path.read_bytes(), 200) if path.is_file() else (b"", 404)
                if outer.statuses.get(name):
                    data, status = b"", outer.statuses[name].pop(0)
                span = self.headers.get("Range")
                if status == 200 and span:
                    first, last = span.removeprefix("bytes=").split("-")
                    data, status = data[int(first) : int(last) + 1], 206
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if path.is_file():
                    self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}"')
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def served(folder: Path):
    server = FileServer(folder)
    try:
        yield server
    finally:
        server.stop()
