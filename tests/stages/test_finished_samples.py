"""``grn sample`` repeated when all is there: no network is loaded, and what does not fit is refused all the same."""

import pytest

import grncli
from grncli.media.writing import write_png
from grncli.runs import loading
from grncli.runtime.errors import StoreMismatch
from grncli.text import encoders

CLASSES = {"per_class": 2, "steps": 3, "device": "cpu", "dtype": "float32"}
PROMPTS = {"prompt": "a red star", "text_encoder": "minilm", "frames": 5, **CLASSES}


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", rounds=2)


@pytest.fixture(scope="module")
def runs(make_generator_run, make_text_run, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    clips = {"grids": {"3x4x4": 9}}
    return {
        "classes": make_generator_run(folder / "classes", tokenizer),
        "prompts": make_text_run(folder / "prompts", tokenizer, **clips),
        "first frame": make_text_run(folder / "full", tokenizer, attention="full", **clips),
    }


@pytest.fixture
def loads(monkeypatch):
    """Files whose weights are read into a network, as they come."""
    read = []

    def watch(module, name):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **more: read.append(name) or original(*args, **more))

    watch(loading, "fill")
    watch(encoders, "read_minilm")
    return read


@pytest.fixture
def sample(runs, tokenizer, draw_picture, tmp_path):
    write_png(tmp_path / "first.png", draw_picture(3, 16, 16))
    options = {"classes": CLASSES, "prompts": PROMPTS, "first frame": PROMPTS | {"first_frame": tmp_path / "first.png"}}

    def call(kind="classes", out="out", **more):
        return grncli.sample(runs[kind], out=tmp_path / out, **{"tokenizer": tokenizer, **options[kind], **more})

    return call


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("classes", {}),
        ("classes", {"offload": True}),
        ("classes", {"schedule": "complexity", "min_steps": 2, "max_steps": 4, "warmup_steps": 1}),
        ("classes", {"out": "bits.zarr"}),
        ("prompts", {}),
        ("first frame", {}),
    ],
)
def test_nothing_is_loaded_for_samples_that_are_there(kind, more, sample, loads, tmp_path, read_tree):
    first = sample(kind, **more)
    assert (first.made, "fill" in loads) == (first.samples, True)
    loads.clear()
    before = read_tree(tmp_path / more.get("out", "out"))
    again = sample(kind, **more)
    assert (again.made, again.samples, loads) == (0, first.samples, [])
    assert read_tree(tmp_path / more.get("out", "out")) == before


def test_what_is_missing_is_made(sample, loads, tmp_path, read_tree):
    first = sample()
    before = read_tree(tmp_path / "out")
    next((tmp_path / "out").rglob("*.png")).unlink()
    assert sample().made == 0
    assert read_tree(tmp_path / "out") == before
    assert sample(per_class=3).made == first.samples // 2
    sample(per_class=3, sheet=tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").exists()
    assert sample(per_class=3, sheet=None).made == 0


def test_a_part_that_is_there_is_told_from_one_that_is_not(sample, loads):
    assert sample(part="0/2").made == 3
    loads.clear()
    assert sample(part="0/2").made == 0
    assert loads == []
    assert sample(part="1/2").made == 3


@pytest.mark.parametrize("kind", ["classes", "prompts"])
def test_samples_of_other_weights_or_settings_are_not_taken_for_these(
    kind, sample, runs, make_generator_run, make_text_run, make_run, tokenizer, tmp_path, monkeypatch
):
    sample(kind)
    with pytest.raises(StoreMismatch, match="temperature"):
        sample(kind, temperature=0.5)
    with pytest.raises(StoreMismatch, match="tokenizer"):
        sample(kind, tokenizer=make_run(tmp_path / "tok", rounds=2, seed=1))
    make, more = (make_generator_run, {}) if kind == "classes" else (make_text_run, {"grids": {"3x4x4": 9}})
    monkeypatch.setitem(runs, kind, make(tmp_path / "other", tokenizer, seed=1, **more))
    with pytest.raises(StoreMismatch, match="generator"):
        sample(kind)
