"""Several SRC become one store, as the command line and the call take them."""

import io
import json
import os
import subprocess
import sys
import tarfile
import time

import pytest

import grncli
from grncli.media import archives
from grncli.runtime.errors import UsageError


@pytest.fixture
def shards(media_dir, tmp_path):
    """Two tars with a picture each, of one name."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"x-{number}.tar", "w") as archive:
            archive.add(media_dir / f"a/0{2 * number}.png", "cat/1.png")
            info = tarfile.TarInfo("cat/1.txt")
            info.size = 4
            archive.addfile(info, io.BytesIO(b"text"))
    return folder


def keys(store):
    return [json.loads(line)["key"] for line in (store / "part-00000/samples.jsonl").read_text().splitlines()]


def test_two_folders_and_paths_on_standard_input_become_one_store(media_dir, run_dir, tmp_path):
    command = [sys.executable, "-m", "grncli", "tokenize", f"{media_dir}/a", "-", f"{tmp_path}/s.zarr", "--null"]
    command += ["--tokenizer", str(run_dir), "--workers", "0", "--device", "cpu"]
    paths = "".join(f"{path}\0" for path in sorted((media_dir / "b").iterdir()))
    done = subprocess.run(command, input=paths, text=True, capture_output=True, check=True)
    names = [path.name for path in sorted((media_dir / "a").iterdir())]
    assert [os.path.basename(key) for key in keys(tmp_path / "s.zarr")[: len(names)]] == names
    assert f"{media_dir}/a, -: " in done.stderr
    assert f"images ({len(names) + paths.count(chr(0))}): 00.png" in done.stderr


def test_shards_of_one_key_are_refused_before_work_and_told_apart_by_a_prefix(shards, run_dir, tmp_path, grn_inside):
    out, pattern = tmp_path / "s.zarr", f"{shards}/x-{{0..1}}.tar"
    with pytest.raises(UsageError, match=r"have one key, cat/1\.png.*--prefix-keys"):
        grncli.tokenize(pattern, out, tokenizer=run_dir, workers=0, device="cpu")
    assert not out.exists()
    grncli.tokenize([pattern], out, tokenizer=run_dir, workers=0, device="cpu", prefix_keys=True, labels="dirs")
    assert keys(out) == ["x-0/cat/1.png", "x-1/cat/1.png"]
    assert grncli.open_store(out).fingerprint.labels == ("cat",)
    compared = grn_inside(
        *("decode", out, tmp_path / "out", "--tokenizer", run_dir, "--device", "cpu"),
        *("--compare", pattern, "--sheet", tmp_path / "sheet.png"),
    )
    assert "PSNR" in compared.stderr + compared.stdout


def test_an_archive_is_listed_once_for_a_run_and_its_repetition(media_dir, run_dir, tmp_path, grn_inside, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture = (media_dir / "a/00.png").read_bytes()
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number in range(70):
            info = tarfile.TarInfo(f"{number:02}.png")
            info.size = len(picture)
            archive.addfile(info, io.BytesIO(picture))
    os.utime(tmp_path / "x.tar", (time.time() - 9,) * 2)
    arguments = ("tokenize", tmp_path / "x.tar", tmp_path / "s.zarr", "--tokenizer", run_dir, "--limit", 2)
    grn_inside(*arguments, "--device", "cpu", "--workers", 0)
    [kept] = (tmp_path / "cache/grn/listings").iterdir()
    monkeypatch.setattr(archives, "members", None)
    done = grn_inside(*arguments, "--device", "cpu", "--workers", 0)
    assert (done.returncode, kept.stat().st_size < 2000) == (0, True)
    assert "nothing to do" in done.stderr
