"""Which sources and samples are taken, and what is said of them, alike in all commands."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from grncli import open_store
from grncli.decoding import store_decoding as decoding
from grncli.decoding.store_decoding import DecodeSettings, decode
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.pairs import open_pairs
from grncli.evaluation.picture_arrays import ArrayPictures
from grncli.evaluation.picture_sources import MediaPictures, StorePictures
from grncli.evaluation.rounds import RoundsSettings, round_statistics
from grncli.media.listing import list_sources
from grncli.runs.checkpoint import write_checkpoint
from grncli.runs.recipe import dump_recipe
from grncli.runs.tokenizer_recipe import Data, ImageData, TokenizerRecipe, Training
from grncli.runs.tokenizers import load_tokenizer
from grncli.runtime.errors import StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.tensor_files import sha256_of
from grncli.tokenizing import tokenizing_plan
from grncli.tokenizing.tokenizing_plan import TokenizeSettings
from grncli.tokenizing.tokenizing_stage import tokenize


def settings(**options):
    return TokenizeSettings(**{"workers": 0, **options})


def keys(store):
    return [record["key"] for record in open_store(store).records()]


def names_of(pictures):
    """Names and places of what is measured, in two shares as by two processes."""
    found = [measured for rank in (0, 1) for measured in pictures.measure(lambda frames: list(frames), share=(rank, 2))]
    found.sort(key=lambda measured: measured.place)
    assert [measured.place for measured in found] == list(range(len(pictures)))
    return [measured.name for measured in found], [measured.result for measured in found]


@pytest.fixture(scope="module")
def store(media_dir, run_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "all.zarr"
    tokenize(str(media_dir), path, run_dir, settings())
    return path


# The same draw everywhere


def test_every_command_draws_the_same(media_dir, run_dir, store, tmp_path):
    tokenize(str(media_dir), tmp_path / "five.zarr", run_dir, settings(sample=5))
    drawn = keys(tmp_path / "five.zarr")
    assert drawn == sorted(drawn)
    assert len(drawn) == 5
    reading = PictureReading(workers=0, sample=5, tokenizer=str(run_dir))
    media = MediaPictures(str(media_dir), reading)
    assert [source.relative for source in media.sources] == drawn
    assert sorted(names_of(StorePictures(store, reading))[0]) == [f"{store}: {key}" for key in drawn]
    stored = open_pairs(str(store), reading, None, str(media_dir), None)
    assert sorted(measured.name for measured in compared(stored)) == drawn


def compared(pairs):
    return list(pairs.compare(lambda originals, versions: list(originals), (0, 1), Monitor()))


def test_quantize_stats_draws_its_sources(media_dir, run_dir):
    found = round_statistics(
        str(media_dir / "a"), run_dir, RoundsSettings(rounds=(1, 1), reading=PictureReading(workers=0, sample=3))
    )
    assert (found.images, found.failed) == (3, 0)


def test_a_store_of_drawn_sources_has_the_bits_of_the_whole_one(media_dir, run_dir, store, tmp_path):
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(sample=6, batch=1))
    whole = {key: open_store(store)[i].bits for i, key in enumerate(keys(store))}
    for i, key in enumerate(keys(tmp_path / "s.zarr")):
        assert np.array_equal(open_store(tmp_path / "s.zarr")[i].bits, whole[key])


def test_reconstructions_of_drawn_pictures_may_be_more(media_dir, run_dir, tmp_path):
    source = str(media_dir / "a")
    pairs = open_pairs(source, PictureReading(workers=0, sample=2), None, None, source)
    assert len(compared(pairs)) == 2


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_rows_of_an_array_are_drawn_in_any_batch(batch, tmp_path):
    pictures = np.arange(11, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "p.npz", arr_0=pictures)
    names, frames = names_of(ArrayPictures(tmp_path / "p.npz", PictureReading(sample=4, batch=batch)))
    rows = [int(frame[0, 0, 0, 0]) for frame in frames]
    assert len(rows) == 4
    assert names == [f"{tmp_path / 'p.npz'}[{row}]" for row in rows]
    assert set(rows) < {
        int(f[0, 0, 0, 0]) for f in names_of(ArrayPictures(tmp_path / "p.npz", PictureReading(sample=9)))[1]
    }


@pytest.mark.parametrize("command", ["tokenize", "recon", "gen", "stats", "quantize-stats"])
def test_a_limit_with_a_draw_is_wrong_usage(command, grn_inside, media_dir, run_dir, tmp_path):
    arguments = {
        "tokenize": ["tokenize", media_dir, tmp_path / "s.zarr", "--tokenizer", run_dir],
        "recon": ["eval", "recon", media_dir, "--tokenizer", run_dir],
        "gen": ["eval", "gen", media_dir, "--reference", media_dir, "--features", run_dir],
        "stats": ["eval", "stats", media_dir, tmp_path / "s.npz", "--features", run_dir],
        "quantize-stats": ["quantize-stats", "--media", media_dir, "--tokenizer", run_dir],
    }[command]
    done = grn_inside(*arguments, "--limit", 2, "--sample", 2)
    assert done.returncode == 2
    assert done.stderr == "grn: --limit 2 with --sample 2: expected one of the two\n"
    assert not list(tmp_path.iterdir())


# Stores of drawn sources


def test_a_larger_draw_does_not_resume_the_store_of_a_smaller_one(media_dir, run_dir, tmp_path):
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(sample=3))
    for sample, asked in ((5, "5"), (None, "none")):
        with pytest.raises(StoreMismatch, match=rf"made with preprocessing\.sample=3; this command asks for {asked}\."):
            tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(sample=sample))
    assert tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(sample=3)).made == 0


def test_a_draw_from_other_sources_is_reported(media_dir, run_dir, tmp_path, make_copy):
    folder = make_copy(media_dir)
    tokenize(str(folder), tmp_path / "s.zarr", run_dir, settings(sample=3))
    (folder / keys(tmp_path / "s.zarr")[0]).unlink()
    with pytest.raises(StoreMismatch, match="samples of 1 source that --sample 3 does not draw now"):
        tokenize(str(folder), tmp_path / "s.zarr", run_dir, settings(sample=3))


@pytest.fixture
def make_copy(tmp_path):
    def copy(folder):
        for path in folder.rglob("*.png"):
            target = tmp_path / "copy" / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        return tmp_path / "copy"

    return copy


def test_parts_of_a_draw_together_hold_the_draw(media_dir, run_dir, tmp_path):
    tokenize(str(media_dir), tmp_path / "one.zarr", run_dir, settings(sample=7))
    for part in range(3):
        tokenize(str(media_dir), tmp_path / "three.zarr", run_dir, settings(sample=7, part=part, parts=3))
    assert sorted(keys(tmp_path / "three.zarr")) == keys(tmp_path / "one.zarr")


def test_a_store_without_a_draw_says_nothing_of_one(store):
    assert "sample" not in open_store(store).fingerprint.preprocessing


# One class of several


def test_a_limit_that_leaves_one_class_is_reported(media_dir, run_dir, store, tmp_path):
    expected = "--limit 3: takes one class only (a) of 4; --sample 3 draws from all"
    said = []
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(limit=3), monitor=Monitor(say=said.append))
    assert [said[0], *said[2:]] == [f"{media_dir}: 3 images", expected]
    MediaPictures(str(media_dir), PictureReading(limit=3), say=said.append)
    assert said[3:] == [f"{media_dir}: {expected}"]


def test_a_limit_that_leaves_one_class_of_a_store_is_reported(media_dir, run_dir, tmp_path):
    tokenize(str(media_dir), tmp_path / "s.zarr", run_dir, settings(labels="dirs"))
    said = []
    for options in ({"limit": 3}, {"limit": 8}, {"sample": 3}):
        StorePictures(tmp_path / "s.zarr", PictureReading(tokenizer=str(run_dir), **options), say=said.append)
    assert said == [f"{tmp_path / 's.zarr'}: --limit 3: takes one class only (a) of 4; --sample 3 draws from all"]


# Classes


@pytest.fixture
def nested(tmp_path, media_dir):
    """``train/CLASS/images/*.png``, and one picture that lies in no class."""
    for name in ("a", "b"):
        for file in sorted((media_dir / name).glob("*.png"))[:2]:
            target = tmp_path / "train" / name / "images" / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    (tmp_path / "train/top.png").write_bytes((media_dir / "a/00.png").read_bytes())
    return tmp_path / "train"


@pytest.mark.parametrize(
    ("labels", "recorded", "names"),
    [
        ("dirs", "dirs", ["images"] * 4),
        ("dirs:-1", "dirs", ["images"] * 4),
        ("dirs:1", "dirs:1", ["a", "a", "b", "b"]),
        ("dirs:-2", "dirs:-2", ["a", "a", "b", "b"]),
    ],
)
def test_the_level_of_the_class_can_be_chosen(nested, run_dir, tmp_path, labels, recorded, names):
    tokenize(str(nested), tmp_path / "s.zarr", run_dir, settings(labels=labels))
    made = open_store(tmp_path / "s.zarr")
    assert made.fingerprint.preprocessing["labels"] == recorded
    found = [made[i].label for i in range(5)]
    assert [made.labels[number] for number in found[:4]] == names
    assert [record["label"] for record in made.records()] == [*names, None]
    assert found[4] == -1


def test_another_level_is_another_store(nested, run_dir, tmp_path):
    tokenize(str(nested), tmp_path / "s.zarr", run_dir, settings(labels="dirs"))
    with pytest.raises(StoreMismatch, match=r"preprocessing\.labels=dirs"):
        tokenize(str(nested), tmp_path / "s.zarr", run_dir, settings(labels="dirs:1"))


@pytest.mark.parametrize("labels", ["dirs:0", "dir", "dirs:9"])
def test_an_invalid_level_is_refused(nested, run_dir, tmp_path, labels):
    with pytest.raises(UsageError, match=f"--labels {labels}: "):
        tokenize(str(nested), tmp_path / "s.zarr", run_dir, settings(labels=labels))
    assert not (tmp_path / "s.zarr").exists()


def test_tokenize_says_what_it_will_do_before_it_does(nested, run_dir, tmp_path):
    (nested / "notes.txt").write_text("no picture")
    said = []
    tokenize(str(nested), tmp_path / "s.zarr", run_dir, settings(labels="dirs:1"), monitor=Monitor(say=said.append))
    assert said == [
        f"{nested}: 5 images; 1 other file ignored (.txt 1)",
        "images (5): a/images/00.png, a/images/02.png, b/images/01.png, ...",
        "2 classes: a (2), b (2); 1 source has no class",
    ]


def test_one_class_for_everything_is_doubted_in_a_dry_run_too(nested, run_dir, tmp_path, grn_inside):
    (nested / "top.png").unlink()
    done = grn_inside(
        *("tokenize", nested, tmp_path / "s.zarr", "--tokenizer", run_dir),
        *("--labels", "dirs", "--dry-run", "--json", "--device", "cpu"),
    )
    assert json.loads(done.stdout)["classes"] == 1
    assert done.stderr.splitlines()[1:3] == [
        "1 class: images (4)",
        "--labels dirs: all sources are of one class, images; --labels dirs:-2 gives 2 (a, b, ...)",
    ]


# URLs


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenize", "MEDIA", "s3://b/o.zarr", "--tokenizer", "RUN"],
        ["tokenize", "s3://b/photos", "o.zarr", "--tokenizer", "RUN"],
        ["tokenize", "MEDIA", "o.zarr", "--tokenizer", "https://b/run"],
        ["decode", "o.zarr", "file:///out", "--tokenizer", "RUN"],
        ["decode", "o.zarr", "gs://out", "--tokenizer", "RUN", "--sheet", "s.png"],
        ["decode", "o.zarr", "out", "--tokenizer", "RUN", "--sheet", "s3://b/s.png"],
        ["train-gen", "recipe.yaml", "o.zarr", "--out", "s3://b/run"],
        ["train-tokenizer", "recipe.yaml", "--data", "http://b/photos", "--out", "run"],
        ["sample", "RUN", "s3://b/samples"],
        ["shapes", "s3://b/shapes"],
        ["import", "https://b/a.ckpt", "run"],
        ["store", "drop", "s3://b/o.zarr", "--keys", "names.txt"],
        ["quantize-stats", "o.zarr", "--plot", "s3://b/plot.png"],
        ["eval", "recon", "MEDIA", "--reconstructions", "s3://b/others"],
        ["eval", "gen", "MEDIA", "--reference", "MEDIA", "--html", "https://b/report.html"],
        ["eval", "stats", "MEDIA", "s3://b/stats.npz"],
        ["eval", "search", "RUN", "--reference", "MEDIA", "--tokenizer", "RUN", "--out", "s3://b/search"],
        ["eval", "export", "MEDIA", "s3://b/out", "--for", "vbench"],
    ],
)
def test_only_stores_that_are_read_may_be_urls(arguments, grn_inside, media_dir, run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = {"MEDIA": media_dir, "RUN": run_dir}
    done = grn_inside(*(places.get(argument, argument) for argument in arguments))
    url = next(argument for argument in arguments if "://" in argument)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"grn: {url}: is a URL, expected a path; ")
    assert not list(tmp_path.iterdir())


def test_urls_in_a_list_of_paths_are_recorded_with_the_reason(media_dir, run_dir, tmp_path):
    lines = [str(media_dir / "a/00.png"), "s3://bucket/x.png", "https://example.com/photo?id=5"]
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    summary = tokenize(str(tmp_path / "list.txt"), tmp_path / "s.zarr", run_dir, settings())
    assert (summary.samples, summary.failed) == (1, 2)
    reasons = {line["source"]: line["error"] for line in open_store(tmp_path / "s.zarr").failures()}
    assert set(reasons) == set(lines[1:])
    assert all(reason.startswith("is a URL; ") for reason in reasons.values())


# What a store says it was made of


@pytest.fixture
def training_run(tmp_path, make_tokenizer, run_dir):
    """A run of 30 steps that is at step 18; the function writes one more checkpoint, of other weights."""
    config = load_tokenizer(run_dir).config
    run = tmp_path / "training"

    def write(step):
        network = make_tokenizer(4, step, **asdict(config))
        write_checkpoint(run, step, {"ema": network.state_dict()}, {"step": step}, asdict(network.config))

    write(18)
    recipe = TokenizerRecipe(network=config, data=Data(image=ImageData(size=16)), training=Training(steps=30))
    (run / "recipe.yaml").write_text(dump_recipe(recipe))
    return run, write


def test_a_checkpoint_that_appears_while_sources_are_listed_does_not_come_into_the_fingerprint(
    training_run, media_dir, tmp_path, monkeypatch
):
    run, write = training_run

    def listing(src, options):
        write(20)
        return list_sources(src, options)

    monkeypatch.setattr(tokenizing_plan, "list_sources", listing)
    tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run, settings())
    monkeypatch.undo()
    tokenize(str(media_dir / "a"), tmp_path / "old.zarr", run / "checkpoints/step-00000018", settings())
    made, expected = open_store(tmp_path / "s.zarr"), open_store(tmp_path / "old.zarr")
    assert np.array_equal(made.read(range(6)), expected.read(range(6)))
    identity = {"name": "training", "sha256": sha256_of(run / "checkpoints/step-00000018/ema.safetensors")}
    assert made.fingerprint.tokenizer == expected.fingerprint.tokenizer == identity


def test_a_checkpoint_that_appears_while_bits_are_decoded_does_not_change_whose_they_are(
    training_run, media_dir, tmp_path, monkeypatch
):
    run, write = training_run
    tokenize(str(media_dir / "a"), tmp_path / "s.zarr", run, settings(limit=2))
    check = decoding.check_fit

    def checked(*arguments):
        write(20)
        return check(*arguments)

    monkeypatch.setattr(decoding, "check_fit", checked)
    assert decode(tmp_path / "s.zarr", tmp_path / "out", run, DecodeSettings()).written == 2
    assert np.asarray(Image.open(tmp_path / "out/00.png")).shape == (16, 16, 3)
    with pytest.raises(StoreMismatch, match="was made by tokenizer training"):
        decode(tmp_path / "s.zarr", tmp_path / "again", run, DecodeSettings())


def test_every_use_of_a_half_trained_run_says_so_once(training_run, media_dir, tmp_path):
    run, _ = training_run
    src, store = str(media_dir / "a"), tmp_path / "s.zarr"
    sentence = f"{run}: is at step 18 of 30, its training is not finished"
    reading = PictureReading(workers=0, limit=1, tokenizer=str(run))
    uses = [
        lambda say: tokenize(src, store, run, settings(limit=2), monitor=Monitor(say=say)),
        lambda say: decode(store, tmp_path / "out", run, DecodeSettings(), monitor=Monitor(say=say)),
        lambda say: open_pairs(src, reading, None, None, None, say=say),
        lambda say: StorePictures(store, reading, say=say),
        lambda say: round_statistics(
            src, run, RoundsSettings(rounds=(1, 1), reading=reading), monitor=Monitor(say=say)
        ),
    ]
    for use in uses:
        said: list[str] = []
        use(said.append)
        assert [text for text in said if "2 images" not in text and "images (2)" not in text] == [sentence]
