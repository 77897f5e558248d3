"""``grn sample`` as a real process: stores, pictures, kills, resumes and refusals."""

import json
import re
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from grncli import open_store
from grncli.media.writing import write_png
from grncli.runtime import devices

FAST = ("--steps", 8, "--temperature", 1, "--guidance", 2, "--per-class", 4)
SPREAD = ("--schedule", "complexity", "--min-steps", 5, "--max-steps", 14, "--warmup-steps", 2, "--steps", 14)


@pytest.fixture(scope="module")
def clip_generator(make_generator_run, tokenizer, tmp_path_factory):
    grids = {"3x4x4": 5, "1x4x4": 2}
    return make_generator_run(tmp_path_factory.mktemp("runs") / "clips", tokenizer, grids=grids, fps=6.0)


@pytest.fixture(scope="module")
def whole(grn, generator, tokenizer, tmp_path_factory):
    """A finished store and a finished folder of the same samples."""
    folder = tmp_path_factory.mktemp("whole")
    for out in ("s.zarr", "pictures"):
        done = grn("sample", generator, folder / out, "--tokenizer", tokenizer, *FAST, "--json")
        assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def samples(store):
    opened = open_store(store)
    view = opened.grid(opened.grid_of(0))
    order = np.argsort(view.column("number"))
    return view.read(order).tobytes(), view.column("number")[order].tolist(), view.column("steps")[order].tolist()


def comments(folder):
    return {file.relative_to(folder): Image.open(file).text["Comment"] for file in folder.rglob("*.png")}


def refused(done, *words, code):
    assert done.returncode == code, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("grn: ")
    for word in words:
        assert str(word) in message
    return message


@pytest.mark.parametrize("begun", ["bfloat16", "float32"])
def test_samples_begun_in_one_number_format_go_on_in_it_on_another_processor(
    grn_inside, generator, tmp_path, monkeypatch, begun
):
    """As parts of one job do that come to nodes of two kinds."""
    arguments = ["sample", generator, tmp_path / "s.zarr", *FAST]
    assert grn_inside(*arguments, "--dtype", begun, "--part", "0/2").returncode == 0
    monkeypatch.setattr(devices, "_has_bfloat16", lambda device: begun == "float32")
    other = "float32" if begun == "bfloat16" else "bfloat16"
    asked = grn_inside(*arguments, "--dtype", other, "--part", "1/2")
    refused(asked, f"preprocessing.dtype={begun}", f"asks for {other}", code=1)
    done = grn_inside(*arguments, "--part", "1/2")
    assert done.returncode == 0, done.stderr
    assert open_store(tmp_path / "s.zarr").complete


def test_a_store_has_labels_and_numbers_of_every_sample(whole):
    store = open_store(whole[0] / "s.zarr")
    view = store.grid((1, 4, 4))
    assert store.complete
    assert view.labels().tolist() == [0, 1, 2] * 4
    assert view.column("seed").tolist() == [0] * 12
    assert set(view.column("steps").tolist()) == {8}
    assert (view.column("nfe") > 8).all()
    assert ((view.column("entropy") > 0) & (view.column("entropy") < 1)).all()


def test_a_folder_holds_the_same_bits_as_pictures(whole):
    folder = whole[0]
    assert samples(folder / "s.zarr") == samples(folder / "pictures" / "samples.zarr")
    assert sorted(comments(folder / "pictures")) == sorted(
        (folder / f"{name}/{n:06d}.png").relative_to(folder) for name in ("ant", "bee", "cat") for n in range(4)
    )


def test_pictures_tell_what_made_them_and_so_does_the_list(whole, tokenizer, generator):
    folder = whole[0] / "pictures"
    told = json.loads(Image.open(folder / "bee" / "000002.png").text["Comment"])
    listed = json.loads((folder / "samples.json").read_text())
    entry = next(line for line in listed["samples"] if line["file"] == "bee/000002.png")
    assert told["class"] == entry["class"] == "bee"
    assert told["number"] == entry["number"] == 7
    assert told["seed"] == entry["seed"] == 0
    assert told["settings"] == listed["settings"]
    assert told["settings"]["guidance"] == 2.0


def test_pictures_are_what_decode_makes_of_the_bits(grn_inside, whole, tokenizer, tmp_path):
    done = grn_inside("decode", whole[0] / "s.zarr", tmp_path / "d", "--tokenizer", tokenizer)
    assert done.returncode == 0, done.stderr
    for file in (whole[0] / "pictures").rglob("*.png"):
        other = tmp_path / "d" / file.relative_to(whole[0] / "pictures")
        ours, theirs = (np.asarray(Image.open(path)).astype(int) for path in (file, other))
        assert np.abs(ours - theirs).max() <= 1  # decode batches, and rounds elsewhere


def test_the_summary_counts_function_evaluations(whole):
    assert whole[1]["samples"] == 12
    assert whole[1]["steps"] == {"8": 12}
    assert whole[1]["nfe"] == 12 * (8 + 4)  # guided at 4/8 .. 7/8


def test_running_again_does_nothing_and_says_so(grn_inside, generator, whole, read_tree):
    before = read_tree(whole[0] / "s.zarr")
    done = grn_inside("sample", generator, whole[0] / "s.zarr", *FAST)
    assert "all samples were there" in done.stderr
    assert read_tree(whole[0] / "s.zarr") == before


def test_parts_in_any_order_and_batches_of_any_size_make_the_same_samples(grn_inside, generator, whole, tmp_path):
    for part, batch in (("2/3", 1), ("0/3", 5), ("1/3", 64)):
        done = grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, "--part", part, "--batch", batch)
        assert done.returncode == 0, done.stderr
    assert samples(tmp_path / "s.zarr") == samples(whole[0] / "s.zarr")


def test_a_class_alone_has_the_samples_it_has_among_all(grn_inside, generator, whole, tmp_path):
    grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, "--classes", "bee")
    bits, numbers, _ = samples(tmp_path / "s.zarr")
    opened = open_store(whole[0] / "s.zarr").grid((1, 4, 4))
    assert numbers == [1, 4, 7, 10]
    assert bits == opened.read(np.flatnonzero(opened.labels() == 1)).tobytes()


def test_more_samples_a_class_go_on_from_those_that_are_there(grn_inside, generator, whole, tmp_path):
    grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, "--per-class", 1)
    done = grn_inside("sample", generator, tmp_path / "s.zarr", *FAST)
    assert "9 samples made" in done.stderr
    assert samples(tmp_path / "s.zarr") == samples(whole[0] / "s.zarr")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_interrupted_run_ends_with_the_same_files(
    start_grn, grn_inside, generator, tokenizer, tmp_path, read_tree, number
):
    options = ("--tokenizer", tokenizer, "--steps", 8, "--per-class", 200, "--batch", 6)
    process = start_grn("sample", generator, tmp_path / "killed", *options)
    commit = tmp_path / "killed" / "samples.zarr" / "part-00000" / "commit.json"
    deadline = time.monotonic() + 60
    while not (commit.exists() and json.loads(commit.read_text())["position"]) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (75 if number == signal.SIGTERM else -9)
    assert 0 < len(open_store(tmp_path / "killed" / "samples.zarr")) < 600
    assert grn_inside("sample", generator, tmp_path / "killed", *options).returncode == 0
    assert grn_inside("sample", generator, tmp_path / "whole", *options).returncode == 0
    killed, whole = read_tree(tmp_path / "killed"), read_tree(tmp_path / "whole")
    assert {name for name in killed if name.endswith(".tmp")} == set()
    assert samples(tmp_path / "killed" / "samples.zarr") == samples(tmp_path / "whole" / "samples.zarr")
    for name, content in whole.items():
        # How long each run took is a log, and no part of the samples.
        assert name.endswith("/timing.jsonl") or killed[name] == content, name


def test_pictures_that_are_missing_are_made_again(grn_inside, generator, tokenizer, whole, tmp_path):
    shutil.copytree(whole[0] / "pictures", tmp_path / "p")
    lost = tmp_path / "p" / "cat" / "000003.png"
    content = lost.read_bytes()
    lost.unlink()
    grn_inside("sample", generator, tmp_path / "p", "--tokenizer", tokenizer, *FAST)
    assert lost.read_bytes() == content


def test_missing_pictures_are_made_by_calls_that_are_too_short_for_all(
    grn_inside, generator, tokenizer, whole, tmp_path, read_tree
):
    shutil.copytree(whole[0] / "pictures", tmp_path / "p")
    for number in range(3):
        (tmp_path / "p" / "cat" / f"00000{number}.png").unlink()
    options = ("--tokenizer", tokenizer, *FAST, "--max-time", "0.001s")
    codes = [grn_inside("sample", generator, tmp_path / "p", *options).returncode for _ in range(3)]
    assert codes == [75, 75, 0]
    assert read_tree(tmp_path / "p") == read_tree(whole[0] / "pictures")


@pytest.mark.parametrize("name", ["samples.zarr", "cat"])
def test_what_a_link_in_the_folder_leads_to_is_left_alone(
    name, grn_inside, generator, tokenizer, whole, tmp_path, read_tree
):
    shutil.copytree(whole[0] / "pictures", tmp_path / "p")
    (tmp_path / "p" / name).rename(tmp_path / "elsewhere")
    (tmp_path / "p" / name).symlink_to(tmp_path / "elsewhere")
    before = read_tree(tmp_path / "elsewhere")
    done = grn_inside("sample", generator, tmp_path / "p", "--tokenizer", tokenizer, *FAST, "--seed", 1, "--overwrite")
    assert done.returncode != 0
    assert f"{tmp_path / 'p' / name} is a link" in done.stderr
    assert "--overwrite" not in done.stderr
    assert read_tree(tmp_path / "elsewhere") == before


def test_certain_samples_take_fewer_steps_and_the_histogram_shows_it(grn_inside, generator, tmp_path):
    options = (*SPREAD, "--target-steps", 9, "--per-class", 8, "--temperature", 1)
    done = grn_inside("sample", generator, tmp_path / "s.zarr", *options)
    assert done.returncode == 0, done.stderr
    steps = samples(tmp_path / "s.zarr")[2]
    assert min(steps) < max(steps)
    assert np.mean(steps) == pytest.approx(9, abs=1.5)
    assert re.search(r"k=\S+ b=\S+: 9\.\d steps on average", done.stderr)
    shown = [int(line.rsplit(maxsplit=1)[1]) for line in done.stdout.splitlines()]
    assert sum(shown) == 24
    again = grn_inside("sample", generator, tmp_path / "t.zarr", *SPREAD, "--per-class", 8, "--temperature", 1)
    assert "as fitted for 9 steps" in again.stderr
    assert samples(tmp_path / "t.zarr") == samples(tmp_path / "s.zarr")


def test_a_sheet_and_a_film_are_written(grn_inside, generator, tokenizer, tmp_path):
    places = ("--sheet", tmp_path / "sheet.png", "--film", tmp_path / "film.mp4")
    done = grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, "--tokenizer", tokenizer, *places)
    assert done.returncode == 0, done.stderr
    for name in ("sheet.png", "film.mp4", "film.png"):
        assert (tmp_path / name).stat().st_size > 500
        assert name in done.stderr


def test_inpainting_keeps_what_is_white_and_changes_the_rest(grn_inside, generator, whole, tmp_path):
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[:8] = 255
    write_png(tmp_path / "mask.png", mask)
    options = (*FAST, "--per-class", 1, "--init", whole[0] / "s.zarr", "--keep", tmp_path / "mask.png", "--seed", 9)
    done = grn_inside("sample", generator, tmp_path / "s.zarr", *options)
    assert done.returncode == 0, done.stderr
    before, after = (open_store(path).grid((1, 4, 4)) for path in (whole[0] / "s.zarr", tmp_path / "s.zarr"))
    assert np.array_equal(after.read(range(12))[:, :, :2], before.read(range(12))[:, :, :2])
    assert not np.array_equal(after.read(range(12))[:, :, 2:], before.read(range(12))[:, :, 2:])
    assert after.labels().tolist() == before.labels().tolist()
    assert open_store(tmp_path / "s.zarr").record(4)["key"] == "bee/000001~000000"


def test_clips_are_made_from_a_first_frame(grn_inside, clip_generator, tokenizer, whole, tmp_path):
    options = (*FAST, "--per-class", 1, "--init", whole[0] / "s.zarr", "--keep", "first-frame")
    done = grn_inside("sample", clip_generator, tmp_path / "clips", *options, "--tokenizer", tokenizer)
    assert done.returncode == 0, done.stderr
    made = open_store(tmp_path / "clips" / "samples.zarr").grid((3, 4, 4)).read(range(12))
    assert np.array_equal(made[:, :1], open_store(whole[0] / "s.zarr").grid((1, 4, 4)).read(range(12)))
    assert len(list((tmp_path / "clips").rglob("*.mp4"))) == 12


def test_overwrite_removes_what_was_sampled_and_nothing_else(grn_inside, generator, tokenizer, whole, tmp_path):
    shutil.copytree(whole[0] / "pictures", tmp_path / "p")
    (tmp_path / "p" / "notes.txt").write_text("mine")
    options = ("--tokenizer", tokenizer, *FAST, "--classes", "ant", "--overwrite")
    done = grn_inside("sample", generator, tmp_path / "p", *options)
    assert done.returncode == 0, done.stderr
    assert {file.parent.name for file in (tmp_path / "p").rglob("*.png")} == {"ant"}
    assert (tmp_path / "p" / "notes.txt").read_text() == "mine"


def test_other_settings_are_refused_and_named(grn_inside, generator, whole, read_tree):
    before = read_tree(whole[0] / "s.zarr")
    done = grn_inside("sample", generator, whole[0] / "s.zarr", *FAST, "--temperature", 1.5)
    refused(done, "temperature=1.0", "1.5", code=1)
    assert read_tree(whole[0] / "s.zarr") == before


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (("--classes", "wasp"), ("'wasp'", "ant, bee, cat"), 2),
        (("--grid", "4x4"), ("--grid 4x4",), 2),
        (("--schedule", "complexity", "--min-steps", 60), ("min_steps 60", "max_steps 50"), 2),
        (("--target-steps", 30), ("--schedule complexity",), 2),
        (("--k", 3), ("--schedule complexity",), 2),
        (("--schedule", "complexity", "--target-steps", 60), ("20 to 50",), 2),
        (("--temperature", 0), ("--temperature",), 2),
        (("--guidance-interval", "1:0"), ("--guidance-interval 1:0",), 2),
        (("--keep", "0.5"), ("--init",), 2),
        (("--weights", "ema2"), ("ema2", "ema"), 2),
        (("--weights", "../ema"), ("../ema", "ema"), 2),
        (("--part", "3/3"), ("--part 3/3",), 2),
        (("--sheet", "sheet.png"), ("--tokenizer",), 2),
        (("--film", "film.gif"), (".mp4",), 2),
        (("--sheet", ".."), ("is a folder",), 2),
        (("--sheet", "film.png", "--film", "film.mp4"), ("film.png",), 2),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    grn_inside, generator, tmp_path, monkeypatch, options, words, code
):
    monkeypatch.chdir(tmp_path)
    refused(grn_inside("sample", generator, tmp_path / "s.zarr", *options), *words, code=code)
    assert list(tmp_path.iterdir()) == []


def test_pictures_need_a_tokenizer(grn_inside, generator, tmp_path):
    refused(grn_inside("sample", generator, tmp_path / "p"), "--tokenizer", code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_of_other_bits_is_refused(grn_inside, generator, make_run, tmp_path):
    other = make_run(tmp_path / "other", rounds=2, seed=7)
    message = refused(grn_inside("sample", generator, tmp_path / "p", "--tokenizer", other), "other", "tok", code=1)
    assert "give the run of that one" in message
    assert not (tmp_path / "p").exists()


def test_a_tokenizer_is_no_generator(grn_inside, tokenizer, tmp_path):
    refused(grn_inside("sample", tokenizer, tmp_path / "s.zarr"), "is the run of a tokenizer", code=1)


def test_a_folder_of_something_else_is_left_alone(grn_inside, generator, tokenizer, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "holiday.jpg").write_bytes(b"x")
    done = grn_inside("sample", generator, tmp_path / "p", "--tokenizer", tokenizer, "--overwrite")
    refused(done, "grn sample did not write", code=2)
    assert [file.name for file in (tmp_path / "p").iterdir()] == ["holiday.jpg"]


def test_samples_do_not_go_where_they_start_from(grn_inside, generator, whole, tmp_path, read_tree):
    shutil.copytree(whole[0] / "s.zarr", tmp_path / "s.zarr")
    before = read_tree(tmp_path / "s.zarr")
    options = ("--init", tmp_path / "s.zarr", "--keep", "0.5", "--overwrite")
    refused(grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, *options), "expected another OUT", code=2)
    assert read_tree(tmp_path / "s.zarr") == before


def test_overwriting_one_part_keeps_the_pictures_of_the_others(grn_inside, generator, tokenizer, tmp_path):
    options = ("--tokenizer", tokenizer, *FAST)
    for part in ("0/2", "1/2"):
        grn_inside("sample", generator, tmp_path / "p", *options, "--part", part)
    before = comments(tmp_path / "p")
    refused(
        grn_inside("sample", generator, tmp_path / "p", *options, "--part", "0/2", "--overwrite", "--seed", 3),
        "seed=0",
        code=1,
    )
    assert comments(tmp_path / "p") == before
    done = grn_inside("sample", generator, tmp_path / "p", *options, "--part", "0/2", "--overwrite")
    assert "6 samples made" in done.stderr
    assert comments(tmp_path / "p") == before


def test_a_part_without_samples_says_so(grn_inside, generator, tokenizer, tmp_path):
    options = ("--tokenizer", tokenizer, "--sheet", tmp_path / "s.png", "--film", tmp_path / "f.mp4")
    done = grn_inside("sample", generator, tmp_path / "s.zarr", *FAST, *options, "--per-class", 1, "--part", "3/4")
    assert done.returncode == 0, done.stderr
    assert "none falls to part 3/4" in done.stderr
    assert not (tmp_path / "s.png").exists()


def test_parts_of_one_folder_can_be_made_at_once(start_grn, generator, tokenizer, whole, tmp_path):
    options = ("--tokenizer", tokenizer, *FAST)
    parts = [start_grn("sample", generator, tmp_path / "p", *options, "--part", f"{i}/2") for i in range(2)]
    for process in parts:
        assert process.wait(60) == 0, process.communicate()
    assert len(json.loads((tmp_path / "p" / "samples.json").read_text())["samples"]) == 12
    assert samples(tmp_path / "p" / "samples.zarr") == samples(whole[0] / "pictures" / "samples.zarr")


def test_a_store_of_media_is_no_place_for_pictures(grn_inside, generator, tokenizer, media_dir, run_dir, tmp_path):
    grn_inside("tokenize", media_dir / "a", tmp_path / "p" / "samples.zarr", "--tokenizer", run_dir)
    done = grn_inside("sample", generator, tmp_path / "p", "--tokenizer", tokenizer, *FAST, "--overwrite")
    refused(done, "grn sample did not make", code=2)


def test_the_samples_of_an_imported_generator_need_its_tokenizer(grn_inside, release_fixtures, tmp_path):
    grn_inside("import", release_fixtures / "c2i_ind.pth", tmp_path / "gen", "--set", "in_context_start=1")
    refused(grn_inside("sample", tmp_path / "gen", tmp_path / "s.zarr"), "--tokenizer", code=2)
    assert not (tmp_path / "s.zarr").exists()
    grn_inside("import", release_fixtures / "tokenizer.ckpt", tmp_path / "tok")
    options = ("--tokenizer", tmp_path / "tok", "--per-class", 1, "--steps", 3)
    assert grn_inside("sample", tmp_path / "gen", tmp_path / "out", *options).returncode == 0
    assert Image.open(tmp_path / "out" / "7" / "000000.png").size == (64, 64)


def test_pictures_of_an_overwritten_folder_are_never_taken_for_new_ones(
    grn_inside, generator, tokenizer, whole, tmp_path, monkeypatch
):
    shutil.copytree(whole[0] / "pictures", tmp_path / "p")
    options = ("--tokenizer", tokenizer, *FAST, "--seed", 5, "--overwrite")
    with monkeypatch.context() as patch:
        patch.setattr("grncli.store.rows.claiming.os.rename", lambda *_: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            grn_inside("sample", generator, tmp_path / "p", *options)
    assert not list((tmp_path / "p").rglob("*.png"))
    assert grn_inside("sample", generator, tmp_path / "p", *options).returncode == 0
    assert grn_inside("sample", generator, tmp_path / "fresh", *options).returncode == 0
    assert comments(tmp_path / "p") == comments(tmp_path / "fresh")
