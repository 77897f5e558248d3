"""Where POSIX's modules and calls are missing, as on Windows, stores and networks are read, and writers locked out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from grncli import open_store
from grncli.runs.tokenizers import load_tokenizer
from grncli.runtime import system
from grncli.store import Fingerprint, open_part

DATA = Path(__file__).parents[1] / "data"
HOLD = """
from pathlib import Path
from grncli.runtime.lock import PathLock
lock = PathLock(Path(sys.argv[1]), signed=True)
print(lock.try_acquire(), lock.holder(), flush=True)
sys.stdin.read()
lock.release()
"""


def like_windows(code, *arguments, **variables):
    """A process to start: its command and environment."""
    command = [sys.executable, "-c", f"import like_windows, sys\n{code}", *map(str, arguments)]
    paths = os.pathsep.join([str(DATA), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"args": command, "env": os.environ | {"PYTHONPATH": paths, **variables}, "text": True}


def output_of(code, *arguments, **variables):
    done = subprocess.run(**like_windows(code, *arguments, **variables), capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "s.zarr"
    settings = {"rounds": 2, "channels": 10, "stride": (1, 16, 16), "labels": ("ant",), "preprocessing": {}}
    bits = np.random.default_rng(0).integers(0, 256, (50, 1, 3, 3, 2, 2), dtype=np.uint8) & np.uint8(0xC0)
    with open_part(path, Fingerprint(**settings, tokenizer={"name": "toy", "sha256": "3f9c" * 16})) as writer:
        writer.append((1, 3, 3), bits, np.zeros(50, int), [{"key": f"{i}", "source": f"{i}"} for i in range(50)])
        writer.commit(50, "0" * 64, 50)
        writer.finish()
    return path


READING = """
import json, pkgutil, grncli
for module in pkgutil.walk_packages(grncli.__path__, "grncli."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
from pathlib import Path
store, run, out = map(Path, sys.argv[1:])
import numpy, torch
opened = grncli.open_store(store)
numpy.save(out / "one.npy", opened[7].bits)
numpy.save(out / "some.npy", opened.grid((1, 3, 3)).read([7, 2, 9], rounds=1))
tokenizer = grncli.load_tokenizer(run)
torch.save(tokenizer.encode(torch.zeros(1, 3, 1, 8, 8)), out / "feature.pt")
from grncli.cli import app
for place in ([store, "--verify"], [run]):
    app(["info", *map(str, place), "--json"], standalone_mode=False)
"""


def test_stores_networks_and_info_need_nothing_of_posix(store, make_run, tmp_path):
    run = make_run(tmp_path / "run")
    printed = output_of(READING, store, run, tmp_path, PRELOAD="1")
    decoder, documents, at = json.JSONDecoder(), [], 0
    while at < len(printed.rstrip()):
        document, at = decoder.raw_decode(printed, at + len(printed[at:]) - len(printed[at:].lstrip()))
        documents.append(document)
    assert [documents[0]["complete"], documents[0]["problems"], documents[1]["kind"]] == [True, [], "tokenizer"]
    view = open_store(store)
    assert np.array_equal(np.load(tmp_path / "one.npy"), view[7].bits)
    assert np.array_equal(np.load(tmp_path / "some.npy"), view.grid((1, 3, 3)).read([7, 2, 9], rounds=1))
    expected = load_tokenizer(run).encode(torch.zeros(1, 3, 1, 8, 8))
    assert torch.allclose(torch.load(tmp_path / "feature.pt"), expected, atol=1e-6)


def test_writers_are_kept_apart_without_posix(tmp_path):
    path = tmp_path / ".lock"
    with subprocess.Popen(**like_windows(HOLD, path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == "True this process\n"
        taken, who = output_of(HOLD.replace("sys.stdin.read()", ""), path).split(maxsplit=1)
        assert (taken, who.startswith(f"process {holder.pid} on ")) == ("False", True)
        holder.stdin.close()
    assert output_of(HOLD.replace("sys.stdin.read()", ""), path) == "True this process\n"


def test_a_system_without_locks_keeps_writers_apart_by_leases(tmp_path):
    code = HOLD.replace("sys.stdin.read()", "")
    assert output_of(code, tmp_path / ".lock", WITHOUT_LOCKS="1") == "True this process\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", ".lock.lease-00000001"]


WRITING = """
from pathlib import Path
from grncli.runtime.files import replace_file, whole_file
from grncli.runtime.folders import ClaimedFolder
from grncli.runtime.jsonlines import LineFile
folder = Path(sys.argv[1])
replace_file(folder / "a", b"one\\ntwo")
with LineFile(folder / "lines") as lines:
    lines.append(b"{}\\n" * 3)
    lines.sync()
(folder / "lines").open("ab").write(b"torn")
with LineFile(folder / "lines") as lines:
    lines.append(b"[]\\n")
with ClaimedFolder(folder) as claimed:
    claimed.require_in_place()
    folder.rename(folder.with_name("moved"))
    try:
        claimed.require_in_place()
    except Exception as error:
        print(type(error).__name__)
"""


def test_files_are_written_whole_without_posix(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    assert output_of(WRITING, folder) == "MissingFolderError\n"
    assert (tmp_path / "moved" / "a").read_bytes() == b"one\ntwo"
    assert (tmp_path / "moved" / "lines").read_bytes() == b"{}\n" * 3 + b"[]\n"


LINKS = """
import os
from grncli.runtime.system import open_file
try:
    open_file(sys.argv[1], os.O_RDWR, follow=False)
except OSError as error:
    print(error.strerror)
print(os.read(open_file(sys.argv[1], os.O_RDONLY), 9))
"""


def test_a_link_is_not_followed_without_posix(tmp_path):
    (tmp_path / "file").write_bytes(b"precious")
    os.symlink("file", tmp_path / "link")
    assert output_of(LINKS, tmp_path / "link") == "Too many levels of symbolic links\nb'precious'\n"


def test_media_say_where_they_are_read(monkeypatch):
    monkeypatch.delattr("select.poll")
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(system.MediaError, match="media are not read on Windows; use Linux, macOS or the Linux inside"):
        system.require_pipes()
