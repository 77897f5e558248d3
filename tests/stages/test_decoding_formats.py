"""``grn decode --format``: pictures as JPEG and WebP, and shards that other programs and ``grn tokenize`` read."""

import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import grncli
from grncli import open_store
from grncli.decoding.output_form import OutputForm, parse_output_form
from grncli.decoding.shards import shard_key
from grncli.decoding.store_decoding import DecodeSettings, decode
from grncli.media.picture_formats import PictureFormat
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.store.captions import CAPTIONS, read_captions

SHARDS = OutputForm(shard_size=7)


@pytest.fixture(scope="module")
def store(media_dir: Path, run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 samples of classes a, b, clips and wide, mirrored as well; every second source has two captions."""
    path = tmp_path_factory.mktemp("store") / "bits.zarr"
    grncli.tokenize(media_dir, path, tokenizer=run_dir, workers=0, flip=True, labels="dirs")
    sources = sorted(open_store(path).sources())
    lines = [
        {"source": source, "captions": [{"content": f"a picture\nof {number}"}, {"content": "蜂"}]}
        for number, source in enumerate(sources[::2])
    ]
    (path / "part-00000" / CAPTIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def shards_of(folder: Path) -> dict[str, dict[str, bytes]]:
    """Files of every shard, in their order."""
    contents = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            contents[path.name] = {member.name: shard.extractfile(member).read() for member in shard}
    return contents


@pytest.mark.parametrize(("name", "kind"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_pictures_are_written_in_the_format_and_quality_asked_for(
    name: str, kind: str, store: Path, run_dir: Path, tmp_path: Path
) -> None:
    sizes = {}
    for quality in (None, 20):
        out = tmp_path / str(quality)
        grncli.decode(store, out, tokenizer=run_dir, format=name, quality=quality, select="0:12")
        pictures = sorted(out.rglob(f"*.{name}"))
        assert (len(pictures), len(list(out.rglob("*.mp4")))) == (12, 0)
        assert all(Image.open(path).format == kind for path in pictures)
        sizes[quality] = sum(path.stat().st_size for path in pictures)
    assert sizes[20] < sizes[None]
    assert grncli.decode(store, out, tokenizer=run_dir, format=name, quality=20, select="0:12").present == 12


@pytest.mark.parametrize(("form", "most"), [(("png",), 0), (("jpg", 100), 5), (("webp", 100), 6)])
def test_pixels_of_the_best_quality_are_near_those_encoded(form: tuple, most: int, draw_picture: Callable) -> None:
    pixels = draw_picture(3, 64, 48)
    read = np.asarray(Image.open(BytesIO(PictureFormat(*form).encode(pixels))).convert("RGB"))
    assert np.abs(read.astype(int) - pixels).max() <= most


def test_a_shard_holds_picture_class_captions_and_line_of_each_sample(
    store: Path, run_dir: Path, tmp_path: Path
) -> None:
    decode(store, tmp_path / "files", run_dir, DecodeSettings())
    summary = decode(store, tmp_path / "out", run_dir, DecodeSettings(form=SHARDS))
    assert (summary.written, summary.present) == (32, 0)
    shards = shards_of(tmp_path / "out")
    assert list(shards) == [f"{number:06d}.tar" for number in range(5)]
    opened, captions, members = open_store(store), read_captions(open_store(store)), {}
    for number, shard in enumerate(shards.values()):
        assert sum(name.endswith(".json") for name in shard) == min(7, 32 - 7 * number)
        members |= shard
    assert (tmp_path / "out/classes.txt").read_text().splitlines() == ["a", "b", "clips", "wide"]
    for index in range(32):
        line, label = opened.record(index), opened[index].label
        key = line["key"].split("#")[0].rsplit(".", 1)[0] + ("@flip" if line.get("flip") else "")
        suffix = ".mp4" if label == 2 else ".png"
        assert members.pop(f"{key}{suffix}") == (tmp_path / "files" / f"{key}{suffix}").read_bytes()
        assert members.pop(f"{key}.cls") == str(label).encode()
        about = json.loads(members.pop(f"{key}.json"))
        assert (about["key"], about["label"]) == (line["key"], opened.labels[label])
        if captions.of_sample(line):
            number = captions.of_sample(line)[0].text.split()[-1]
            assert members.pop(f"{key}.txt").decode() == f"a picture of {number}\n蜂\n"
    assert members == {}


def test_shards_are_read_back_with_their_keys_and_captions(store: Path, run_dir: Path, tmp_path: Path) -> None:
    decode(store, tmp_path / "out", run_dir, DecodeSettings(form=OutputForm(shard_size=100)))
    again = tmp_path / "again.zarr"
    shard = tmp_path / "out/000000.tar"
    summary = grncli.tokenize(shard, again, tokenizer=run_dir, workers=0, labels="dirs", captions=True)
    assert (summary.samples, summary.failed) == (32, 0)
    before, after = open_store(store), open_store(again)
    assert after.labels == before.labels
    keys = sorted(shard_key(before.record(index)) for index in range(32))
    assert sorted(line["key"].rsplit(".", 1)[0] for line in after.records()) == keys
    texts = [caption.text for line in after.records() for caption in read_captions(after).of_sample(line)]
    assert len(texts) == 2 * sum(bool(read_captions(before).of_sample(line)) for line in before.records())


def test_shards_that_are_stopped_again_and_again_come_to_the_end(
    store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    settings = DecodeSettings(batch=5, form=SHARDS)
    decode(store, tmp_path / "whole", run_dir, settings)
    stopped = 0
    while stopped < 100:
        try:
            summary = decode(store, tmp_path / "out", run_dir, settings, monitor=Monitor(Stop(max_time=0)))
            break
        except Stopped:
            stopped += 1
    assert stopped > 5
    assert (summary.written + summary.present, summary.present) == (32, 32 - summary.written)
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
import grncli
from grncli.runtime.jsonlines import LineFile

store, out, run, event, count = sys.argv[1:]
owner, name = {"append": (LineFile, "append"), "rename": (Path, "replace")}[event]
real, left = getattr(owner, name), [int(count)]

def killing(self, *args):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *args)

setattr(owner, name, killing)
grncli.decode(store, out, tokenizer=run, batch=5, format="webdataset", shard_size=7, device="cpu")
"""


def test_killed_processes_leave_what_another_completes_byte_for_byte(
    store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    settings = DecodeSettings(batch=5, form=SHARDS)
    decode(store, tmp_path / "whole", run_dir, settings)
    out = tmp_path / "out"
    # Behind the bytes of the fifth sample and before its line; then before the second shard gets its name.
    for event, count in (("append", 10), ("rename", 2)):
        words = [sys.executable, "-c", KILLED, store, out, run_dir, event, str(count)]
        assert subprocess.run(words, timeout=120).returncode == -signal.SIGKILL
    assert [path.name for path in sorted(out.glob("*.tar"))] == ["000000.tar"]
    summary = decode(store, out, run_dir, settings)
    assert (summary.written, summary.present) == (18, 14)
    assert read_tree(out) == read_tree(tmp_path / "whole")


def test_a_shard_that_was_lost_is_made_again(store: Path, run_dir: Path, tmp_path: Path, read_tree: Callable) -> None:
    out, settings = tmp_path / "out", DecodeSettings(form=SHARDS)
    decode(store, out, run_dir, settings)
    before = shards_of(out)
    (out / "000001.tar").unlink()
    summary = decode(store, out, run_dir, settings)
    assert (summary.written, summary.present) == (7, 25)
    assert shards_of(out) == before
    (out / "000004.tar").unlink()
    assert decode(store, out, run_dir, settings).written == 4
    assert shards_of(out) == before
    assert decode(store, out, run_dir, settings).present == 32


def test_a_folder_is_of_one_format_and_one_selection_of_shards(store: Path, run_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    decode(store, out, run_dir, DecodeSettings(select=(0, 9, None), form=SHARDS))
    with pytest.raises(UsageError, match=r"selected\.last=8 there, 9 asked"):
        decode(store, out, run_dir, DecodeSettings(select=(0, 10, None), form=SHARDS))
    with pytest.raises(UsageError, match="shard_size=7 there, None asked"):
        decode(store, out, run_dir, DecodeSettings(select=(0, 9, None)))
    (out / ".000002.tar.tmp").write_bytes(b"")
    decode(store, out, run_dir, DecodeSettings(select=(0, 1, None), overwrite=True))
    assert sorted(path.name for path in out.iterdir()) == [".lock", "a", "decode.json", "decoded.jsonl"]


def test_a_list_that_does_not_fit_its_shards_is_refused(store: Path, run_dir: Path, tmp_path: Path) -> None:
    out, settings = tmp_path / "out", DecodeSettings(select=(0, 9, None), form=SHARDS)
    decode(store, out, run_dir, settings)
    lines = (out / "decoded.jsonl").read_text()
    for wrong in ('{"file": "000000.tar", "index": 3}', '{"file": "000009.tar", "index": 31, "member": "x", "end": 9}'):
        (out / "decoded.jsonl").write_text(f"{lines}{wrong}\n")
        with pytest.raises(UsageError, match=r"decoded\.jsonl:10: holds .* expected a sample and where it ends"):
            decode(store, out, run_dir, settings)


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({"key": "a/00.png"}, "a/00"),
        ({"key": "a.b/v1.2.jpeg"}, "a.b/v1_2"),
        ({"key": "a/00.mp4#3", "clip": 3}, "a/00@0003"),
        ({"key": "a/00.PNG#flip", "flip": True}, "a/00@flip"),
        ({"key": "sample.7"}, "sample_7"),
        ({"key": "../.x.png"}, "_up/_x"),
    ],
)
def test_keys_have_no_dot_in_their_last_part(record: dict, key: str) -> None:
    assert shard_key(record) == key


def test_two_sources_of_one_key_are_told_apart(
    draw_picture: Callable, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(["1.png", "1.webp", "2.a.png", "2_a.png"]):
        Image.fromarray(draw_picture(number)).save(tmp_path / "in" / name)
    grncli.tokenize(tmp_path / "in", tmp_path / "s.zarr", tokenizer=run_dir, workers=0)
    decode(tmp_path / "s.zarr", tmp_path / "out", run_dir, DecodeSettings(form=SHARDS))
    (members,) = shards_of(tmp_path / "out").values()
    assert [name for name in members if name.endswith(".png")] == ["1.png", "1@1.png", "2_a.png", "2_a@3.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("gif", None, None), "--format gif: expected png, jpg, webp, webdataset, webdataset:jpg or webdataset:webp"),
        (("png", 90, None), "--quality 90 with --format png: PNG loses nothing"),
        (("webdataset", 90, None), "--quality 90 with --format webdataset: PNG loses nothing"),
        (("jpg", 101, None), "--quality 101: expected 1 to 100"),
        (("jpg", None, 9), "--shard-size 9 with --format jpg: only webdataset has shards"),
    ],
)
def test_formats_that_cannot_be_are_refused(options: tuple, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_output_form(*options)


def test_the_command_writes_shards(store: Path, run_dir: Path, tmp_path: Path, grn_inside: Callable) -> None:
    options = ["--tokenizer", run_dir, "--format", "webdataset:jpg", "--quality", 80, "--shard-size", 20]
    done = grn_inside("decode", store, tmp_path / "out", *options)
    assert (done.returncode, "32 samples written" in done.stderr) == (0, True)
    members = [name for shard in shards_of(tmp_path / "out").values() for name in shard]
    assert sum(name.endswith(".jpg") for name in members) == 28
    assert json.loads((tmp_path / "out/decode.json").read_text())["quality"] == 80
