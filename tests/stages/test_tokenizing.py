"""``grn tokenize`` from Python: what goes into a store, and that nothing is lost on the way."""

import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from grncli import load_tokenizer, open_store
from grncli.hbq import pack, quantize
from grncli.media.decoder import DecoderPool, Done
from grncli.media.writing import write_png
from grncli.models.tokenizer import to_input
from grncli.runtime.errors import MediaError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.tokenizing import tokenizing_stage
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


def settings(**options: object) -> TokenizeSettings:
    return TokenizeSettings(**{"workers": 0, **options})


def keys(store: Path) -> list[str]:
    return [record["key"] for record in open_store(store).records()]


def expected_bits(run: Path, pixels: np.ndarray, rounds: int = 4) -> np.ndarray:
    """Bits of uint8 [T, H, W, 3] straight from the network."""
    with torch.inference_mode():
        feature = load_tokenizer(run).encode(to_input(torch.tensor(pixels)[None]))
    return pack(quantize(feature, rounds), rounds)[0].numpy()


class StopAfter(Stop):
    """Asks to stop once it was asked ``times`` times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.left = times

    @property
    def reason(self) -> str | None:
        self.left -= 1
        return "SIGTERM" if self.left < 0 else None


def test_every_source_becomes_a_sample(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    summary = tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    assert (summary.sources, summary.samples, summary.failed) == (16, 16, 0)
    assert open_store(tmp_path / "s.zarr").grids == {(1, 4, 4): 12, (1, 4, 6): 2, (7, 4, 4): 2}


def test_bits_are_those_of_the_network(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    store = open_store(tmp_path / "s.zarr")
    index = keys(tmp_path / "s.zarr").index("a/04.png")
    pixels = np.asarray(Image.open(media_dir / "a/04.png"))[None]
    assert np.array_equal(store[index].bits, expected_bits(run_dir, pixels))


def test_every_line_names_key_grid_row_and_source(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    records = list(open_store(tmp_path / "s.zarr").records())
    assert all({"key", "grid", "row", "source"} <= record.keys() for record in records)
    assert len({record["key"] for record in records}) == len(records)
    assert all(Path(record["source"]).is_file() for record in records)


def test_directories_become_labels(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(labels="dirs"))
    store = open_store(tmp_path / "s.zarr")
    assert store.labels == ("a", "b", "clips", "wide")
    for i, record in enumerate(store.records()):
        assert store.labels[store[i].label] == record["key"].split("/")[0]


def test_without_labels_every_label_is_minus_one(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    assert {open_store(tmp_path / "s.zarr")[i].label for i in range(16)} == {-1}


def test_fewer_rounds_are_a_prefix_of_more(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    for rounds in (2, 6):
        tokenize(str(media_dir / "a"), tmp_path / f"{rounds}.zarr", run_dir, settings(rounds=rounds))
    coarse, fine = open_store(tmp_path / "2.zarr"), open_store(tmp_path / "6.zarr")
    assert np.array_equal(coarse.read(range(6)), fine.read(range(6), rounds=2))


def test_flip_stores_the_mirrored_picture_too(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run_dir, settings(flip=True))
    assert keys(tmp_path / "s.zarr")[:2] == ["00.png", "00.png#flip"]
    mirrored = np.asarray(Image.open(media_dir / "a/00.png"))[None, :, ::-1]
    assert np.array_equal(open_store(tmp_path / "s.zarr")[1].bits, expected_bits(run_dir, mirrored.copy()))


def test_windows_of_a_clip_are_samples_of_their_own(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir / "clips"), tmp_path / "s.zarr", run_dir, settings(frames=5))
    assert keys(tmp_path / "s.zarr") == ["0.mp4#0", "0.mp4#1", "1.mp4#0", "1.mp4#1"]
    assert open_store(tmp_path / "s.zarr").grids == {(3, 4, 4): 4}


def test_windows_asked_for_are_counted(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir / "clips"), tmp_path / "s.zarr", run_dir, settings(frames=3, clips=2))
    assert keys(tmp_path / "s.zarr") == ["0.mp4#0", "0.mp4#3", "1.mp4#0", "1.mp4#3"]


def test_parts_together_hold_what_one_run_holds(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "one.zarr", run_dir, settings(labels="dirs"))
    for part in (1, 0, 2):
        assert not (tmp_path / "three.zarr" / "COMPLETE").exists()
        tokenize(str(media_dir), tmp_path / "three.zarr", run_dir, settings(labels="dirs", part=part, parts=3))
    one, three = open_store(tmp_path / "one.zarr"), open_store(tmp_path / "three.zarr")
    assert three.complete
    whole = {record["key"]: one[i] for i, record in enumerate(one.records())}
    for i, record in enumerate(three.records()):
        assert three[i].label == whole[record["key"]].label
        assert np.array_equal(three[i].bits, whole.pop(record["key"]).bits)
    assert not whole


def test_finished_store_is_left_alone(media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    before = read_tree(tmp_path / "s.zarr")
    assert tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings()).made == 0
    assert read_tree(tmp_path / "s.zarr") == before


@pytest.mark.parametrize("asked", [0, 1, 3, 6])
def test_resumed_store_is_byte_identical(
    asked: int, media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    options = settings(batch=2, frames=5, size="16")
    tokenize(str(media_dir), tmp_path / "whole.zarr", run_dir, options)
    with pytest.raises(Stopped, match="SIGTERM"):
        tokenize(str(media_dir), tmp_path / "cut.zarr", run_dir, options, monitor=Monitor(StopAfter(asked)))
    assert not open_store(tmp_path / "cut.zarr").complete
    tokenize(str(media_dir), tmp_path / "cut.zarr", run_dir, options)
    assert read_tree(tmp_path / "cut.zarr") == read_tree(tmp_path / "whole.zarr")


def test_stop_does_not_wait_for_a_decoder_that_hangs(
    media_dir: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_tree: Callable
) -> None:
    read, stop, left = DecoderPool.read, Stop(), threading.Event()

    def hanging(pool: DecoderPool, *arguments: Any) -> Iterator[tuple[int, Any]]:
        for number, event in read(pool, *arguments):
            yield number, event
            if number == 3 and isinstance(event, Done):
                threading.Timer(0.5, lambda: setattr(stop, "_signal", signal.SIGTERM)).start()
                assert left.wait(30)
                raise RuntimeError("abandoned")

    monkeypatch.setattr(tokenizing_stage, "STOP_PATIENCE", 0.2)
    monkeypatch.setattr(DecoderPool, "read", hanging)
    monkeypatch.setattr(DecoderPool, "abandon", lambda pool: left.set())
    with pytest.raises(Stopped, match="stopped after 4 of 16 sources, 4 samples are saved"):
        tokenize(str(media_dir), tmp_path / "cut.zarr", run_dir, settings(batch=1), monitor=Monitor(stop))
    monkeypatch.setattr(DecoderPool, "read", read)
    for name in ("cut.zarr", "whole.zarr"):
        tokenize(str(media_dir), tmp_path / name, run_dir, settings(batch=1))
    assert read_tree(tmp_path / "cut.zarr") == read_tree(tmp_path / "whole.zarr")


def test_worker_processes_change_nothing(media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable) -> None:
    for workers in (0, 1, 3):
        tokenize(str(media_dir), tmp_path / f"{workers}.zarr", run_dir, settings(workers=workers, frames=5))
    assert read_tree(tmp_path / "0.zarr") == read_tree(tmp_path / "1.zarr") == read_tree(tmp_path / "3.zarr")


def test_more_sources_behind_the_old_ones_are_added(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(limit=5))
    summary = tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    assert (summary.made, summary.samples) == (11, 16)
    assert len(set(keys(tmp_path / "s.zarr"))) == 16


def test_other_sources_are_refused(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run_dir, settings())
    with pytest.raises(StoreMismatch, match=r"samples of 6 sources that SRC does not list now \(such as .*00\.png\)"):
        tokenize(str(media_dir / "b"), tmp_path / "s.zarr", run_dir, settings())


@pytest.mark.parametrize(
    ("options", "named"),
    [({"rounds": 2}, "rounds=4"), ({"size": "8"}, "preprocessing.size=native"), ({"flip": True}, "preprocessing.flip")],
)
def test_other_settings_are_refused_and_named(
    options: dict, named: str, media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    before = read_tree(tmp_path / "s.zarr")
    with pytest.raises(StoreMismatch, match=named):
        tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(**options))
    assert read_tree(tmp_path / "s.zarr") == before


def test_another_tokenizer_is_refused(
    media_dir: Path, run_dir: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    with pytest.raises(StoreMismatch, match=r"tokenizer\.sha256"):
        tokenize(str(media_dir), tmp_path / "s.zarr", make_run(tmp_path / "other", seed=1), settings())


def test_overwrite_discards_what_is_there(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings())
    tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run_dir, settings(rounds=2, overwrite=True))
    store = open_store(tmp_path / "s.zarr")
    assert (len(store), store.rounds) == (6, 2)


@pytest.fixture
def damaged_dir(media_dir: Path, tmp_path: Path) -> Path:
    """The sources of ``media_dir`` among bad ones: cut short, empty, of another kind, too small, playlists."""
    folder = tmp_path / "damaged"
    shutil.copytree(media_dir, folder)
    whole = (folder / "clips/0.mp4").read_bytes()
    (folder / "a" / "00-empty.png").write_bytes(b"")
    (folder / "a" / "01-text.mp4").write_text("no clip at all")
    (folder / "b" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(folder / "b" / "cut.jpg")
    (folder / "b" / "cut.jpg").write_bytes((folder / "b" / "cut.jpg").read_bytes()[:400])
    write_png(folder / "wide" / "one.png", np.zeros((1, 1, 3), np.uint8))
    (folder / "wide" / "list.m3u8").write_text(f"#EXTM3U\n{folder}/clips/0.mp4\n")
    return folder


def test_bad_sources_are_recorded_and_good_ones_are_all_there(damaged_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    said: list[str] = []
    summary = tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings(), monitor=Monitor(say=said.append))
    assert (summary.samples, summary.failed) == (16, 6)
    failed = {Path(line["source"]).name: line["error"] for line in open_store(tmp_path / "s.zarr").failures()}
    assert set(failed) == {"00-empty.png", "01-text.mp4", "cut.mp4", "cut.jpg", "one.png", "list.m3u8"}
    assert len([text for text in said if text.endswith("skipped")]) == 6


def test_repaired_sources_come_in_with_retry_failed(
    damaged_dir: Path, media_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings())
    shutil.copy(media_dir / "a/00.png", damaged_dir / "wide/one.png")
    assert tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings()).made == 0
    summary = tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings(retry_failed=True))
    assert (summary.made, summary.failed) == (1, 5)
    assert "wide/one.png" in keys(tmp_path / "s.zarr")


def test_failing_again_is_not_recorded_twice(damaged_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings())
    log = (tmp_path / "s.zarr/part-00000/failures.jsonl").read_bytes()
    tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings(retry_failed=True))
    assert (tmp_path / "s.zarr/part-00000/failures.jsonl").read_bytes() == log


def test_strict_stops_at_the_first_bad_source(damaged_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"00-empty\.png.*--strict"):
        tokenize(str(damaged_dir), tmp_path / "s.zarr", run_dir, settings(strict=True))
    store = open_store(tmp_path / "s.zarr")
    assert not store.complete
    assert not list(store.failures())


def test_strict_run_resumes_after_a_repair(media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable) -> None:
    folder = tmp_path / "repaired"
    shutil.copytree(media_dir, folder)
    good = (folder / "wide/0.png").read_bytes()
    (folder / "wide/0.png").write_bytes(b"bad")
    with pytest.raises(MediaError):
        tokenize(str(folder), tmp_path / "s.zarr", run_dir, settings(strict=True, batch=2))
    (folder / "wide/0.png").write_bytes(good)
    tokenize(str(folder), tmp_path / "s.zarr", run_dir, settings(strict=True, batch=2))
    tokenize(str(folder), tmp_path / "whole.zarr", run_dir, settings(batch=2))
    assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / "whole.zarr")


def test_no_readable_source_is_an_error(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.png").write_text("no picture")
    with pytest.raises(MediaError, match="none of 1 sources could be read"):
        tokenize(str(tmp_path / "in"), tmp_path / "s.zarr", run_dir, settings())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 4}, r"--frames 4: expected 1 \+ 2n"),
        ({"size": "10"}, "10 is no multiple of the tokenizer's stride 4"),
        ({"size": "16x18"}, "18 is no multiple"),
        ({"clips": 2}, "--clips needs --frames"),
        ({"part": 3, "parts": 3}, "parts count from 0 to 2"),
    ],
)
def test_impossible_options_are_refused(
    options: dict, sentence: str, media_dir: Path, run_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=sentence):
        tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(**options))
    assert not (tmp_path / "s.zarr").exists()


def test_continuous_tokenizer_needs_rounds(media_dir: Path, make_run: Callable[..., Path], tmp_path: Path) -> None:
    run = make_run(tmp_path / "continuous", rounds=None)
    with pytest.raises(UsageError, match="--rounds"):
        tokenize(str(media_dir), tmp_path / "s.zarr", run, settings())
    tokenize(str(media_dir), tmp_path / "s.zarr", run, settings(rounds=3))
    assert open_store(tmp_path / "s.zarr").rounds == 3


def test_bfloat16_is_close_to_float32_and_never_mixed_with_it(media_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    tokenize(str(media_dir), tmp_path / "32.zarr", run_dir, settings())
    tokenize(str(media_dir), tmp_path / "16.zarr", run_dir, settings(dtype="bfloat16"))
    exact, rough = (open_store(tmp_path / name).grid((1, 4, 4)).read(range(12), 1) for name in ("32.zarr", "16.zarr"))
    assert np.unpackbits(exact ^ rough).mean() < 0.05
    with pytest.raises(StoreMismatch, match=r"preprocessing\.dtype"):
        tokenize(str(media_dir), tmp_path / "32.zarr", run_dir, settings(dtype="bfloat16"))


def test_release_files_become_the_bits_of_the_release(release_fixtures: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    from grncli.runs.importing import import_released

    import_released(release_fixtures / "tokenizer.ckpt", tmp_path / "run")
    tokenize(str(release_fixtures / "media"), tmp_path / "s.zarr", tmp_path / "run", settings(size="native"))
    expected = load_file(release_fixtures / "media_expected.safetensors")
    store = open_store(tmp_path / "s.zarr")
    for i, record in enumerate(store.records()):
        bits = np.unpackbits(store[i].bits, axis=-1, count=store.channels)
        wrong = (bits != expected[f"{record['key']}:bits"]).any(axis=-2)
        feature = expected[f"{record['key']}:feature"]
        to_edge = np.abs(feature * 8 - np.round(feature * 8)) / 8
        assert (to_edge[wrong] < 1e-5).all()
    assert len(store) == len(expected) // 2


def test_a_stopped_overwrite_resumes_unless_the_sources_are_others(
    media_dir: Path, run_dir: Path, tmp_path: Path, read_tree: Callable
) -> None:
    settings = TokenizeSettings(workers=0, batch=1, overwrite=True)
    for folder in ("a", "b"):
        tokenize(str(media_dir / folder), tmp_path / f"{folder}.zarr", run_dir, settings)
    for src in ("a", "b"):
        with pytest.raises(Stopped):
            tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run_dir, settings, monitor=Monitor(StopAfter(1)))
        again = tokenize(str(media_dir / src), tmp_path / "s.zarr", run_dir, settings)
        assert (again.made < 6) == (src == "a")
        assert read_tree(tmp_path / "s.zarr") == read_tree(tmp_path / f"{src}.zarr")
