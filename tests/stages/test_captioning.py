"""Captions as a user meets them: from text files, from JSON lines, in `grn info` and as features."""

import json
import re
import shutil
import signal
import time

import pytest

from grncli import open_store
from grncli.runtime.errors import MediaError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.store.captions import read_captions
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


@pytest.fixture
def captioned(media_dir, tmp_path):
    """The folder of media with a caption for all but the pictures of class b, a broken one, and a lone one."""
    folder = tmp_path / "media"
    shutil.copytree(media_dir, folder)
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".png", ".mp4") and path.parent.name != "b":
            path.with_suffix(".txt").write_text(f"{path.parent.name} {path.stem}\nanother of {path.stem}\n")
    (folder / "a/00.txt").write_bytes(b"caf\xe9")
    (folder / "a/02.txt").write_bytes(b"twice\ntwice\n")
    (folder / "lone.txt").write_text("of nothing")
    return folder


def settings(**options):
    return TokenizeSettings(**{"workers": 0, **options})


def texts(store):
    captions = read_captions(open_store(store))
    return {source: [caption.text for caption in captions.of(source)] for source in captions}


def without_captions(tree):
    return {name: data for name, data in tree.items() if not name.endswith("captions.jsonl")}


def test_windows_and_mirrored_copies_share_the_caption_of_their_source(captioned, run_dir, tmp_path):
    summary = tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings(flip=True, frames=5))
    store = open_store(tmp_path / "s.zarr")
    captions = read_captions(store)
    assert (summary.captioned, summary.uncaptioned, summary.lone_captions) == (9, 7, 1)
    clip = [line for line in store.records() if line["source"].endswith("clips/0.mp4")]
    assert len(clip) == 4
    assert {tuple(caption.text for caption in captions.of_sample(line)) for line in clip} == {
        ("clips 0", "another of 0")
    }
    assert captions.of(f"{captioned}/b/01.png") == ()
    assert [caption.text for caption in captions.of(f"{captioned}/a/02.png")] == ["twice"]


def test_what_is_no_caption_is_named_and_counted(captioned, run_dir, tmp_path, grn_inside):
    said = []
    tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings(), monitor=Monitor(say=said.append))
    text = "\n".join(said)
    assert "captions: 10 of 16 sources have a file beside them or a line of a manifest, 1 more without media" in text
    assert re.search(r"a/00\.txt: line 1 is not valid UTF-8, .*a/00\.png has no caption", text)
    assert "a/02.txt: has the caption 'twice' twice" in text
    with pytest.raises(
        MediaError, match=r"00\.txt: line 1 is not valid UTF-8.*because of --strict, 16 samples are saved"
    ):
        tokenize(str(captioned), tmp_path / "t.zarr", run_dir, settings(strict=True))


def test_bits_and_their_store_are_the_same_with_captions_and_without(
    captioned, media_dir, run_dir, tmp_path, read_tree
):
    trees = []
    for name, options in (("with", {}), ("without", {"captions": False})):
        tokenize(str(captioned), tmp_path / name, run_dir, settings(**options))
        trees.append(read_tree(tmp_path / name))
    assert trees[0].keys() - trees[1].keys() == {"part-00000/captions.jsonl"}
    assert without_captions(trees[0]) == trees[1]
    # What is given later needs no new bits.
    tokenize(str(captioned), tmp_path / "without", run_dir, settings())
    assert read_tree(tmp_path / "without") == trees[0]


def test_a_second_run_adds_captions_and_replaces_none(captioned, run_dir, tmp_path, grn_inside):
    tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings())
    (tmp_path / "c.jsonl").write_text(json.dumps({"path": "wide/0.png", "caption": "better"}))
    assert grn_inside("captions", tmp_path / "s.zarr", tmp_path / "c.jsonl").returncode == 0
    (captioned / "b/01.txt").write_text("new")
    assert tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings()).captioned == 10
    found = texts(tmp_path / "s.zarr")
    assert (found[f"{captioned}/wide/0.png"], found[f"{captioned}/b/01.png"]) == (["better"], ["new"])


class StopInTheEnd(Stop):
    """Asks to stop once something is committed."""

    def __init__(self, store):
        super().__init__()
        self.commit = store / "part-00000/commit.json"

    @property
    def reason(self):
        return "SIGTERM" if self.commit.exists() else None


def test_a_run_stopped_before_its_captions_says_so_and_adds_them_later(captioned, run_dir, tmp_path, read_tree):
    monitor = Monitor(stop=StopInTheEnd(tmp_path / "s.zarr"))
    with pytest.raises(Stopped, match="stopped before the captions, 16 samples are saved"):
        tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings(), monitor=monitor)
    assert not open_store(tmp_path / "s.zarr").complete
    for name in ("s.zarr", "whole"):
        tokenize(str(captioned), tmp_path / name, run_dir, settings())
    assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / "whole")


def test_a_run_that_is_done_when_it_should_stop_is_complete(media_dir, run_dir, tmp_path):
    monitor = Monitor(stop=StopInTheEnd(tmp_path / "s.zarr"))
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(), monitor=monitor)
    assert open_store(tmp_path / "s.zarr").complete


def test_a_killed_run_is_resumed_with_the_same_bytes(captioned, run_dir, tmp_path, start_grn, grn_inside, read_tree):
    for number in range(300):
        shutil.copy(captioned / "a/04.png", captioned / f"a/x{number}.png")
        (captioned / f"a/x{number}.txt").write_text(f"number {number}")
    arguments = ("--tokenizer", run_dir, "--workers", 0, "--batch", 1)
    process = start_grn("tokenize", captioned, tmp_path / "killed", *arguments)
    end = time.monotonic() + 60
    while not (tmp_path / "killed/part-00000/1x4x4").exists():
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed/COMPLETE").exists()
    for name in ("killed", "whole"):
        assert grn_inside("tokenize", captioned, tmp_path / name, *arguments).returncode == 0
    assert len(texts(tmp_path / "whole")) == 309
    assert read_tree(tmp_path / "killed") == read_tree(tmp_path / "whole")


def test_parts_keep_the_captions_of_their_own_sources(captioned, run_dir, tmp_path):
    for part in range(2):
        tokenize(str(captioned), tmp_path / "parts", run_dir, settings(part=part, parts=2))
    tokenize(str(captioned), tmp_path / "whole", run_dir, settings())
    parts, whole = (read_captions(open_store(tmp_path / name)) for name in ("parts", "whole"))
    assert all((tmp_path / f"parts/part-0000{part}/captions.jsonl").stat().st_size for part in range(2))
    assert parts.digest() == whole.digest()


def test_the_commands_from_text_files_to_features(captioned, run_dir, tmp_path, grn, grn_inside):
    store = tmp_path / "s.zarr"
    made = grn("tokenize", captioned, store, "--tokenizer", run_dir)
    assert made.returncode == 0, made.stderr
    assert "16 samples of 16 sources, captions of 9 sources (7 have none), captions without media: 1" in made.stderr
    (tmp_path / "c.jsonl").write_text(
        '{"image_path": "b/01.png", "long_caption": "a long one", "text": "short", "width": 16, "height": 16}\n'
        '{"video_path": "no.mp4", "begin_frame_id": 0, "end_frame_id": 9, "fps": 8, "caption": [{"content": "x"}]}\n'
    )
    given = grn("captions", store, tmp_path / "c.jsonl")
    assert given.returncode == 0, given.stderr
    assert "captions added to 1 and replaced for 0 of 16 sources; 6 have none; lines of media" in given.stderr
    assert "nothing to do" in grn_inside("captions", store, tmp_path / "c.jsonl").stderr
    assert json.loads(grn_inside("captions", store, tmp_path / "c.jsonl", "--json").stdout)["unchanged"] == 1
    shown = " ".join(grn_inside("info", store).stdout.split())
    assert "captions of 10 of 16 samples; 19 captions of 10 sources, of the kinds long (1)" in shown
    assert "such as twice (" in shown
    facts = json.loads(grn_inside("info", store, "--verify", "--json").stdout)
    assert (facts["captions"]["samples"], facts["problems"]) == (10, [])
    assert facts["captions"]["examples"][0] == {"source": f"{captioned}/a/02.png", "caption": "twice"}
    done = grn_inside("encode-text", store, tmp_path / "f.zarr", "--text-encoder", "minilm", "--json")
    assert json.loads(done.stdout)["distinct"] == 1 + len({text for some in texts(store).values() for text in some})


def test_a_wrong_line_is_one_sentence_and_exit_code_2(captioned, run_dir, tmp_path, grn_inside):
    tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings())
    (tmp_path / "c.jsonl").write_text('{"path": "wide/0.png", "caption": "x"}\n{"path": "wide/1.png"}\n')
    before = texts(tmp_path / "s.zarr")
    done = grn_inside("captions", tmp_path / "s.zarr", tmp_path / "c.jsonl")
    assert done.returncode == 2
    assert f"{tmp_path}/c.jsonl:2: has no caption" in " ".join(done.stderr.split())
    assert texts(tmp_path / "s.zarr") == before


def test_info_of_damaged_captions_names_the_line(captioned, run_dir, tmp_path, grn_inside):
    tokenize(str(captioned), tmp_path / "s.zarr", run_dir, settings())
    with (tmp_path / "s.zarr/part-00000/captions.jsonl").open("a") as file:
        file.write("half a li")
    done = grn_inside("info", tmp_path / "s.zarr", "--verify")
    assert done.returncode == 1
    assert "part-00000/captions.jsonl:10: cannot be read as JSON" in done.stderr
