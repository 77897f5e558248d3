"""Reading a store from a web server, beside a plain download of the same files: pytest -m bench -s tests/bench."""

import http.client
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import numpy as np
import pytest

from grncli.store import Fingerprint, open_part, open_store

pytestmark = pytest.mark.bench
pytest.importorskip("aiohttp")

GRID, ROW, ROWS = (1, 16, 16), (1, 16, 16, 4, 2), 1 << 17  # 256 MiB
THREADS = 16
# Answers after a while, as a bucket does, and sends all clients together so many bytes a second.
SERVER = """
import sys, threading, time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
folder, delay, rate = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
lock, free = threading.Lock(), [0.0]

class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args):
        super().__init__(*args, directory=folder)

    def copyfile(self, source, output):
        time.sleep(delay)
        while piece := source.read(1 << 18):
            with lock:
                free[0] = max(free[0], time.monotonic()) + len(piece) / rate
                wait = free[0] - time.monotonic()
            time.sleep(max(0.0, wait))
            output.write(piece)

    def log_message(self, *args):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "bits.zarr"
    generator = np.random.default_rng(0)
    with open_part(path, Fingerprint(4, 16, (1, 16, 16), {"name": "bench", "sha256": "0"}, {})) as writer:
        for first in range(0, ROWS, 4096):
            records = [{"key": f"{first + i}", "source": "s"} for i in range(4096)]
            writer.append(GRID, generator.integers(0, 256, (4096, *ROW), dtype=np.uint8), None, records)
        writer.commit(1, "")
        writer.finish()
    return path


@pytest.fixture(params=[(0.0, 1e12), (0.03, 200e6)], ids=["as fast as can be", "30 ms, 200 MB/s"])
def url(store, request):
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(store.parent), *map(str, request.param)], stdout=subprocess.PIPE, text=True
    )
    yield f"http://127.0.0.1:{int(server.stdout.readline())}/bits.zarr"
    server.kill()
    server.wait()


def download(url, names):
    """Every file into memory, on kept connections."""
    place = urlsplit(url)

    def fetch(some):
        connection = http.client.HTTPConnection(place.hostname, place.port)
        total = 0
        for name in some:
            connection.request("GET", f"{place.path}/{name}")
            total += len(connection.getresponse().read())
        return total

    with ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(fetch, [names[i::THREADS] for i in range(THREADS)]))


def test_reading_beside_a_plain_download(store, url, tmp_path, monkeypatch):
    names = [str(path.relative_to(store)) for path in (store / "part-00000").rglob("bits/c.*")]
    rates = {}

    def measure(name, action):
        start = time.perf_counter()
        action()
        rates.setdefault(name, []).append(ROWS * np.prod(ROW) / (time.perf_counter() - start) / 1e6)

    def read(opened):
        opened.grid(GRID).read(np.arange(ROWS))

    for turn in range(3):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(turn)))
        measure("plain download", partial(download, url, names))
        measure("read, nothing in the cache", partial(read, open_store(url)))
        measure("read again, from the cache", partial(read, open_store(url)))
        monkeypatch.setenv("GRN_CACHE_GIB", "0")
        measure("read without a cache", partial(read, open_store(url)))
        monkeypatch.delenv("GRN_CACHE_GIB")
    plain = max(rates["plain download"])
    for name, values in rates.items():
        print(f"\n{name:32s} {max(values):8.0f} MB/s {max(values) / plain:6.2f} of the download", end="")
