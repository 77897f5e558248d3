"""Prompts of a generator of texts: their forms, defaults by task, features computed once, and what they start from."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toy_features import WIDTH, ToyFeatures

from grncli.media import framing
from grncli.models.tokenizer import to_input
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.sampling import plan as planning
from grncli.sampling.calibration import settle_schedule
from grncli.sampling.plan import make_plan
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample
from grncli.schedules import Complexity, Cosine, Fixed
from grncli.store import open_store

OPTIONS = SampleOptions(steps=3, prompt="a red star")
CLIPS = {"3x4x4": 5}


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", 2)


@pytest.fixture(scope="module")
def make_texts(make_text_run, tokenizer, tmp_path_factory):
    def make(**options):
        return make_text_run(tmp_path_factory.mktemp("runs") / "gen", tokenizer, **{"width": WIDTH, **options})

    return make


@pytest.fixture(scope="module")
def run(make_texts):
    return make_texts()


@pytest.fixture(scope="module")
def clips(make_texts):
    return make_texts(attention="full", grids=CLIPS)


def write(path, *prompts):
    path.write_text("".join(f"{prompt}\n" for prompt in prompts))
    return path


def samples(path):
    """Bits and record of each sample, by number."""
    store = open_store(path)
    view = store.grid(store.grid_of(0))
    numbers = view.column("number").tolist()
    return {n: (store[i].bits.tobytes(), store.record(i)) for n, i in zip(numbers, view.indices.tolist(), strict=True)}


def sampled(run, out, options, **more):
    sample(run, out, options, features=ToyFeatures(), **more)
    return samples(out)


def settings_of(run, tmp_path, **changes):
    plan = make_plan(run, tmp_path / "s.zarr", replace(OPTIONS, **changes), features=ToyFeatures())
    return plan.settings, plan.subjects


# Defaults


def test_what_is_not_given_is_the_run_s_by_task(run, tmp_path):
    settings, subjects = settings_of(run, tmp_path)
    assert settings.schedule == Cosine(3, 0.95)
    assert (settings.guidance, settings.guidance_interval, settings.temperature) == (3.0, (0.0, 1.0), 1.1)
    assert subjects.texts.negative == ""
    settings, subjects = settings_of(run, tmp_path, frames=5)
    assert (settings.guidance, settings.temperature) == (4.0, 1.0)
    assert subjects.texts.negative == "blurred"
    assert subjects.prompts[0].final == "<T2V>a red star Good."


def test_what_is_given_counts(run, tmp_path):
    given = {"schedule": "linear", "guidance": 1.5, "guidance_interval": "0.2:0.9", "temperature": 0.7}
    settings, subjects = settings_of(run, tmp_path, negative_prompt="ugly", **given)
    assert settings.schedule == Fixed(3)
    assert (settings.guidance, settings.guidance_interval, settings.temperature) == (1.5, (0.2, 0.9), 0.7)
    assert subjects.texts.negative == "ugly"
    assert settings_of(run, tmp_path, shift=2.0, cosine_end=0.8)[0].schedule == Cosine(3, 0.8, 2.0)


def test_pictures_may_take_fewer_steps_than_clips(run, tmp_path):
    complexity = {"schedule": "complexity", "steps": 50}
    assert settings_of(run, tmp_path, **complexity)[0].schedule.min_steps == 10
    assert settings_of(run, tmp_path, **complexity, frames=5)[0].schedule.min_steps == Complexity.min_steps


def test_a_schedule_fitted_to_some_prompts_serves_others_but_no_other_settings(make_texts, tmp_path):
    run, said = make_texts(), []
    fitting = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", "a", "b"), schedule="complexity", steps=20)
    limits = {"min_steps": 4, "max_steps": 12, "warmup_steps": 2}
    sampled(run, tmp_path / "p.zarr", replace(fitting, target_steps=8.0, **limits))

    def settled(**changes):
        options = replace(fitting, prompts=None, prompt="c", **limits, **changes)
        plan = make_plan(run, tmp_path / "c.zarr", options, features=ToyFeatures())
        return settle_schedule(plan, Monitor(say=said.append))

    assert settled().k != Complexity.k
    assert "as fitted for 8 steps of other prompts" in said[-1]
    assert settled(temperature=0.9).k == Complexity.k


def test_a_negative_prompt_may_stand_in_a_file(run, tmp_path):
    (tmp_path / "n.txt").write_bytes("\ufeff ugly,\n blurred \n".encode())
    assert settings_of(run, tmp_path, negative_prompt=f"@{tmp_path / 'n.txt'}")[1].texts.negative == "ugly, blurred"


# Prompts


def test_records_have_every_form_of_a_prompt_and_its_number(run, tmp_path):
    options = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", "a  star", "a &amp; b"), per_class=2)
    made = sampled(run, tmp_path / "s.zarr", options)
    assert [made[n][1]["key"] for n in range(4)] == ["00000/00000", "00001/00000", "00000/00001", "00001/00001"]
    assert made[3][1] | {"row": 3} == {
        "grid": "1x4x4",
        "row": 3,
        "key": "00001/00001",
        "source": "sample 3",
        "prompt_number": 1,
        "prompt": "a &amp; b",
        "final_prompt": "<T2I>a & b",
    }
    assert len({bits for bits, _ in made.values()}) == 4


def test_a_sample_depends_on_prompt_number_and_seed_alone(run, tmp_path):
    first = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", "a", "star", "long prompt of words"), batch=2)
    others = replace(first, prompts=write(tmp_path / "q", "b", "star", "c", "d", "e"), batch=5)
    one, two = sampled(run, tmp_path / "1.zarr", first), sampled(run, tmp_path / "2.zarr", others)
    assert one[1][0] == two[1][0]
    assert one[0][0] != two[0][0]
    assert sampled(run, tmp_path / "3.zarr", replace(first, seed=1))[1][0] != one[1][0]


def test_parts_make_the_same_samples_and_read_only_their_own_prompts(run, tmp_path):
    options = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", "a", "b", "a", "c"))
    whole = sampled(run, tmp_path / "whole.zarr", options)
    for part, prompts in ((1, ["<T2I>b", "<T2I>c"]), (0, ["<T2I>a"])):
        features = ToyFeatures()
        sample(run, tmp_path / "parts.zarr", replace(options, part=part, parts=2), features=features)
        assert features.asked == [[*prompts, ""]]  # each distinct one once, and the negative one
    parts = samples(tmp_path / "parts.zarr")
    assert {n: bits for n, (bits, _) in parts.items()} == {n: bits for n, (bits, _) in whole.items()}


def test_a_stopped_run_resumes_to_the_same_bits(run, tmp_path, stop_after):
    options = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", *"abcde"), per_class=2, batch=2)
    with pytest.raises(Stopped):
        sampled(run, tmp_path / "s.zarr", options, monitor=Monitor(stop_after(7)))
    assert 0 < len(open_store(tmp_path / "s.zarr")) < 10
    assert sampled(run, tmp_path / "s.zarr", options) == sampled(run, tmp_path / "whole.zarr", options)


def test_only_prompts_of_samples_that_are_lacking_are_read(run, tokenizer, tmp_path):
    options = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", *"abcd"), tokenizer=str(tokenizer))

    def read(**changes):
        features = ToyFeatures()
        sample(run, tmp_path / "o", replace(options, **changes), features=features)
        return features.asked[0]

    assert read() == ["<T2I>a", "<T2I>b", "<T2I>c", "<T2I>d", ""]
    assert read() == [""]
    assert read(film=tmp_path / "f.mp4") == ["<T2I>a", "<T2I>b", "<T2I>c", "<T2I>d", ""]
    assert read(overwrite=True) == ["<T2I>a", "<T2I>b", "<T2I>c", "<T2I>d", ""]


@pytest.mark.parametrize(
    "changes",
    [{"prompt": "a star"}, {"negative_prompt": "ugly"}, {"guidance": 2.0}, {"cosine_end": 0.9}, {"size": "16x32"}],
)
def test_other_texts_or_settings_are_other_samples(run, tmp_path, changes):
    sampled(run, tmp_path / "s.zarr", OPTIONS)
    with pytest.raises(Exception, match="was made with preprocessing"):
        sampled(run, tmp_path / "s.zarr", replace(OPTIONS, **changes))


def test_features_of_another_encoder_are_other_samples(run, tmp_path):
    sampled(run, tmp_path / "s.zarr", OPTIONS)
    with pytest.raises(Exception, match="encoder="):
        sample(run, tmp_path / "s.zarr", OPTIONS, features=ToyFeatures("another"))


@pytest.mark.parametrize("changes", [{"encoder": {"name": "toy", "sha256": "0" * 64}}, {"width": 9}])
def test_features_that_the_run_did_not_learn_are_refused_before_its_weights_are_read(
    make_texts, tmp_path, monkeypatch, changes
):
    monkeypatch.setattr(planning, "load_weights", lambda *_, **__: pytest.fail("the weights were read"))
    with pytest.raises(UsageError, match="encoder toy"):
        sample(make_texts(**changes), tmp_path / "s.zarr", OPTIONS, features=ToyFeatures())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, "expected --prompt TEXT or --prompts FILE"),
        ({"prompt": " "}, "is empty"),
        ({"prompt": "&nbsp; "}, "is empty"),
        ({"prompt": "\udcff"}, "not valid UTF-8"),
        ({"prompt": "word " * 600}, "601 tokens, and the generator takes at most 512"),
        ({"classes": "0"}, "--classes 0"),
        ({"prompts": "p"}, "--prompt 'a red star' with --prompts p"),
        ({"negative_prompt": "@missing"}, "--negative-prompt @missing: cannot be read"),
        ({"text_encoder": "minilm", "text": "s"}, "--text-encoder minilm with --text s"),
        ({"first_frame": "a.png"}, "single frames, expected clips"),
        ({"shift": 2.0, "schedule": "linear"}, "--schedule cosine"),
    ],
)
def test_what_cannot_be_meant_is_refused(run, tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        sampled(run, tmp_path / "s.zarr", replace(OPTIONS, **changes))
    assert not (tmp_path / "s.zarr").exists()


def test_a_generator_of_classes_takes_no_option_of_texts(make_generator_run, tokenizer, tmp_path):
    run = make_generator_run(tmp_path / "classes", tokenizer)
    for name in ("prompt", "text_encoder", "text", "negative_prompt", "rewrite", "first_frame"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is for generators that are conditioned"):
            sample(run, tmp_path / "s.zarr", SampleOptions(**{name: "x"}))


# What samples start from


def draw(path, size=(16, 16), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def first_frames(store, numbers):
    """Unpacked bits of the first frame."""
    return [np.frombuffer(store[n][0], np.uint8).reshape(3, 4, 4, 2, 1)[0] for n in numbers]


@pytest.mark.parametrize("attention", ["full", "text-only"])
def test_a_first_frame_stays_bit_for_bit(make_texts, tokenizer, tmp_path, attention):
    from grncli.hbq import pack, quantize
    from grncli.runs.tokenizers import load_tokenizer

    pixels = draw(tmp_path / "f.png")
    network = load_tokenizer(tokenizer)
    with torch.inference_mode():
        encoded = pack(quantize(network.encode(to_input(torch.from_numpy(pixels)[None, None])), 2), 2)
    run = make_texts(attention=attention, grids=CLIPS)
    options = replace(OPTIONS, first_frame=tmp_path / "f.png", tokenizer=str(tokenizer), per_class=2)
    made = sampled(run, tmp_path / "s.zarr", options)
    for frame in first_frames(made, (0, 1)):
        assert np.array_equal(frame, encoded[0, 0].numpy())
    assert made[0][0] != made[1][0]
    assert made[0][1]["first_frame"] == "f.png"
    assert made[0][1]["first_frame_sha256"] == hashlib.sha256((tmp_path / "f.png").read_bytes()).hexdigest()
    assert made[0][1]["final_prompt"] == "<I2V>a red star"


def test_a_folder_has_a_first_frame_for_each_prompt_in_the_order_of_names(clips, tokenizer, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    draw(folder / "b.png", seed=1)
    draw(folder / "a.png", seed=2)
    (folder / "notes.txt").write_text("no picture")
    two = write(tmp_path / "p", "one", "two")
    options = replace(OPTIONS, prompt=None, prompts=two, first_frame=folder, tokenizer=str(tokenizer))
    made = sampled(clips, tmp_path / "s.zarr", options)
    assert [made[n][1]["first_frame"] for n in (0, 1)] == ["a.png", "b.png"]
    alone = sampled(
        clips, tmp_path / "t.zarr", replace(OPTIONS, first_frame=folder / "a.png", tokenizer=str(tokenizer))
    )
    assert np.array_equal(*first_frames(made | {9: alone[0]}, (0, 9)))
    with pytest.raises(UsageError, match="has 2 pictures for 1 prompts"):
        sampled(clips, tmp_path / "u.zarr", replace(options, prompt="one", prompts=None))


@pytest.mark.parametrize(
    ("size", "words"), [((16, 16), None), ((40, 30), "40x30 pixels, scaled"), ((9, 40), "smaller than the clips")]
)
def test_how_a_first_frame_is_fitted_is_told(clips, tokenizer, tmp_path, size, words):
    draw(tmp_path / "f.png", size)
    said = []
    options = replace(OPTIONS, first_frame=tmp_path / "f.png", tokenizer=str(tokenizer))
    sampled(clips, tmp_path / "s.zarr", options, monitor=Monitor(say=said.append))
    assert [words in line for line in said if words] == ([True] if words else [])
    assert len(said) == bool(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no picture", "cannot be read as a picture"),
        ((100_000, 1), "f.png: is 100000x1 pixels, too narrow"),
        (None, "cannot be read"),
    ],
)
def test_a_first_frame_that_is_no_picture_of_use_is_refused(clips, tokenizer, tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(framing, "MAX_PIXELS", 1 << 20)
    if isinstance(content, tuple):
        draw(tmp_path / "f.png", content)
    elif content is not None:
        (tmp_path / "f.png").write_bytes(content)
    options = replace(OPTIONS, first_frame=tmp_path / "f.png", tokenizer=str(tokenizer))
    with pytest.raises(UsageError, match=words):
        sampled(clips, tmp_path / "s.zarr", options)


def test_samples_start_from_samples_by_their_own_prompts_or_one_for_all(run, tmp_path):
    options = replace(OPTIONS, prompt=None, prompts=write(tmp_path / "p", "a", "b"))
    before = sampled(run, tmp_path / "s.zarr", options)
    again = replace(OPTIONS, prompt=None, init=tmp_path / "s.zarr", keep="0.5", seed=5)
    own = sampled(run, tmp_path / "own.zarr", again)
    assert [own[n][1]["prompt"] for n in (0, 1)] == ["a", "b"]
    assert [own[n][1]["key"] for n in (0, 1)] == ["00000/00000~000000", "00001/00000~000000"]
    one = sampled(run, tmp_path / "one.zarr", replace(again, prompt="c"))
    assert {one[n][1]["prompt"] for n in (0, 1)} == {"c"}
    for n in (0, 1):
        kept = np.unpackbits(np.frombuffer(before[n][0], np.uint8) ^ np.frombuffer(own[n][0], np.uint8))
        assert 0 < kept.sum() < 64  # about half of 128 bits stay, and of the others half by chance


def test_the_first_frames_of_samples_are_clean_ones_too(clips, make_texts, tmp_path):
    """As of pictures: the network is told that they are true."""
    sampled(clips, tmp_path / "s.zarr", OPTIONS)
    options = replace(OPTIONS, prompt=None, init=tmp_path / "s.zarr", keep="first-frame", seed=3)
    plan = make_plan(clips, tmp_path / "t.zarr", options, features=ToyFeatures())
    assert plan.subjects.clean_first
    assert plan.subjects.prompts[0].final == "<I2V>a red star"
    partly = make_plan(clips, tmp_path / "t.zarr", replace(options, keep="0.3"), features=ToyFeatures())
    assert not partly.subjects.clean_first
