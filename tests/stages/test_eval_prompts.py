"""Generators of texts by ``grn eval search`` and ``grn eval gen``: prompts, features, and how samples show them."""

import json
import os
import re
import shlex

import numpy as np
import pytest
import torch

from grncli.evaluation import searched_prompts, trial_judge
from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.generation import GenSettings, generation
from grncli.evaluation.grids import name_of, parse_grid
from grncli.evaluation.halving import search
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.search_folder import MANIFEST, POINTS
from grncli.evaluation.text_image_scores import TextImageOptions
from grncli.evaluation.trial_judge import SearchSettings
from grncli.media.writing import write_png
from grncli.runtime.errors import UsageError
from grncli.sampling.settings import SampleOptions
from grncli.store import open_store
from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import open_feature_part
from grncli.text.prompt_features import PromptFeatures
from grncli.text.templates import prompt_digest

WIDTH = 3
PROMPTS = ["red", "a green star", "blue or red"]
FORMS = sorted(["", *(f"<T2I>{prompt}" for prompt in PROMPTS)], key=len)


@pytest.fixture(autouse=True)
def instant_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda fd: None)


def feature(text):
    return torch.from_numpy(np.random.default_rng(len(text)).standard_normal((len(text.split()) + 1, WIDTH))).float()


class Drawn(PromptFeatures):
    """Features by the lengths of prompts, and which were asked for."""

    def __init__(self):
        self.encoder, self.width, self.asked = {"name": "drawn", "sha256": "5" * 64}, WIDTH, []

    def of(self, prompts):
        self.asked += prompts
        return [feature(prompt) for prompt in prompts]


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", rounds=2)


@pytest.fixture(scope="module")
def generator(make_text_run, tokenizer, tmp_path_factory):
    return make_text_run(tmp_path_factory.mktemp("runs") / "gen", tokenizer, width=WIDTH)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "p.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """The same as a store."""
    path = tmp_path_factory.mktemp("features") / "f.zarr"
    with open_feature_part(path, FeatureSettings(Drawn().encoder, WIDTH, "float32", 77)) as writer:
        for text in sorted(FORMS, key=lambda text: len(text.split())):
            writer.append(feature(text)[None], [text], [prompt_digest(text)])
        writer.commit(1, "", 1)
        writer.finish()
    return path


@pytest.fixture
def drawn(monkeypatch):
    """The features of searches, computed when they are asked for."""
    source = Drawn()
    monkeypatch.setattr(searched_prompts, "open_prompt_features", lambda *_: source)
    return source


@pytest.fixture(scope="module")
def real(draw_picture, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for i in range(12):
        write_png(folder / f"{i:02d}.png", draw_picture(i))
    return folder


@pytest.fixture(scope="module")
def find(generator, tokenizer, prompts, colour_networks):
    def run(out, *grid, reference=None, text_image=True, by=None, per_class=None, **sampling):
        image, text = colour_networks
        settings = SearchSettings(
            grid=parse_grid(grid),
            sampling=SampleOptions(
                **{"steps": 2, "prompts": prompts, "text_encoder": "given", "per_class": per_class, **sampling}
            ),
            networks=NetworkOptions(features=str(tokenizer)),
            text_image=TextImageOptions(image=image, text=text) if text_image else None,
            by=by,
            reading=PictureReading(tokenizer=str(tokenizer), workers=0),
        )
        return search(generator, reference and str(reference), out, settings)

    return run


def scored(store, tokenizer, colour_networks):
    """The text-image score by ``grn eval gen``."""
    reading = PictureReading(tokenizer=str(tokenizer), workers=0)
    image, text = colour_networks
    options = TextImageOptions(image=image, text=text)
    return generation(str(store), None, GenSettings(reading=reading, text_image=options)).value("text-image")


def test_the_largest_text_image_score_is_best(find, drawn, tokenizer, colour_networks, tmp_path):
    found = find(tmp_path / "s", "temperature=0.5,1.0,2.0", per_class=2)
    assert [(trial.per_class, trial.samples) for trial in found.trials] == [(2, 6), (2, 6), (1, 3)]
    scores = [trial.text_image for trial in found.trials]
    assert scores[0] > scores[1]
    assert (found.by, found.distance, {trial.distance for trial in found.trials}) == ("text-image", None, {None})
    store = tmp_path / "s" / POINTS / f"{name_of(found.best.point)}.zarr"
    assert found.best.text_image == pytest.approx(scored(store, tokenizer, colour_networks), rel=1e-9)
    assert found.best.nfe == 4  # two steps of both passes


def test_features_are_computed_once_for_all_trials(find, drawn, tmp_path):
    find(tmp_path / "s", "guidance=1,2,3", per_class=2)
    assert sorted(drawn.asked, key=len) == FORMS


def test_distance_and_score_are_measured_together_and_either_decides(find, drawn, real, tmp_path, monkeypatch):
    found = find(tmp_path / "s", "temperature=0.5,2.0", per_class=2, reference=real)
    assert found.by == "distance"
    assert found.best.distance < found.trials[1].distance or found.trials[1].per_class == 1
    monkeypatch.setattr(trial_judge, "observe_samples", lambda *_, **__: pytest.fail("measured again"))
    again = find(tmp_path / "s", "temperature=0.5,2.0", per_class=1, reference=real, by="text-image")
    assert again.best.text_image == max(trial.text_image for trial in again.trials)


def test_samples_are_those_of_the_run_and_the_settings(find, drawn, tmp_path):
    """What the grid and the options leave open is what the run records."""
    find(tmp_path / "s", "temperature=0.5", per_class=1, ratio="2:1", budget="16x16")
    store = open_store(tmp_path / "s" / POINTS / "temperature=0.5.zarr")
    made = store.fingerprint.preprocessing
    assert (made["guidance"], made["guidance_interval"], made["temperature"]) == (3.0, [0, 1], 0.5)
    assert made["schedule"]["kind"] == "cosine"
    height, width = made["grid"][1:]
    assert width == 2 * height
    assert [record["prompt"] for record in store.records()] == PROMPTS


def test_complexity_aware_steps_are_searched_for_texts(find, drawn, tmp_path):
    found = find(tmp_path / "s", "b=0,30", per_class=1, schedule="complexity", k=0.0, steps=20, max_steps=20)
    assert sorted(trial.nfe for trial in found.trials) == [2 * 10, 2 * 20]  # T_min of pictures, and most


def test_another_list_of_prompts_is_another_search(find, drawn, tmp_path):
    find(tmp_path / "s", "temperature=0.5", per_class=1)
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    assert (manifest["sampling"]["encoder"], manifest["sampling"]["negative_prompt"]) == ("5" * 64, "")
    (tmp_path / "q.txt").write_text("red\n")
    with pytest.raises(UsageError, match=r"other settings or data \(sampling.prompts"):
        find(tmp_path / "s", "temperature=0.5", per_class=1, prompts=tmp_path / "q.txt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"text_image": False}, "nothing to compare with"),
        ({"by": "distance"}, "--by distance needs --reference"),
        ({"prompts": None}, "expected --prompts FILE"),
        ({"text_encoder": None}, "expected --text-encoder DIR or minilm, or --text STORE"),
        ({"classes": "0"}, "--prompts .* with --classes 0"),
        ({"cosine_end": 0.9, "schedule": "linear"}, "--cosine-end and --shift are for --schedule cosine"),
        ({"budget": "much"}, "much"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(find, drawn, tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        find(tmp_path / "s", "temperature=0.5", **options)
    assert (drawn.asked, list(tmp_path.iterdir())) == ([], [])


def test_a_text_image_score_needs_prompts(make_generator_run, tokenizer, colour_networks, tmp_path):
    run = make_generator_run(tmp_path / "gen", tokenizer)
    image, text = colour_networks
    settings = SearchSettings(
        grid=parse_grid(["temperature=1"]),
        sampling=SampleOptions(steps=2),
        text_image=TextImageOptions(image=image, text=text),
        reading=PictureReading(tokenizer=str(tokenizer), workers=0),
    )
    with pytest.raises(UsageError, match=r"with their prompts, expected --prompts FILE"):
        search(run, None, tmp_path / "s", settings)
    assert not (tmp_path / "s").exists()


def test_the_commands_take_prompts_and_say_how_they_scored(
    grn_inside, generator, tokenizer, prompts, features, colour_networks, tmp_path
):
    sampled = ("--prompts", prompts, "--text", features, "--steps", 2)
    compared = ("--tokenizer", tokenizer, "--text-image-network", *colour_networks, "--device", "cpu")
    out = tmp_path / "s"
    done = grn_inside(
        "eval", "search", generator, *compared, *sampled, "--per-prompt", 1, "--out", out, "--grid", "guidance=1,2"
    )
    assert done.returncode == 0, done.stderr
    assert "text-image score" in done.stdout
    assert "Text-image score by image image.pt (sha256" in " ".join(done.stdout.split())
    best = done.stderr.partition("best of 2: grn ")[2]
    folder = tmp_path / "out"
    words = [str(folder) if word == "OUT" else word for word in shlex.split(best)]
    done = grn_inside(*words, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    done = grn_inside("eval", "gen", folder, *compared[2:], "--json")
    assert done.returncode == 0, done.stderr
    (figure,) = json.loads(done.stdout)["figures"]
    guidance = words[words.index("--guidance") + 1]
    store = out / POINTS / f"guidance={guidance}.zarr"
    assert figure["value"] == pytest.approx(scored(store, tokenizer, colour_networks), rel=1e-6)
    done = grn_inside("eval", "gen", store, *compared, "--html", tmp_path / "r.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r.html").read_text()
    worst = page[page.index("Least like their prompts") : page.index("Some of the samples")]
    told = re.findall(r"<small>([0-9.]+): (.*?)</small>", worst)
    assert [float(score) for score, _ in told] == sorted(float(score) for score, _ in told)
    assert sorted(prompt for _, prompt in told) == sorted(PROMPTS)
    assert "NFE a sample" in done.stdout
    assert "3 samples of 16x16 pixels (rounds 2)" in done.stdout


def test_options_of_a_network_that_is_not_given_are_refused(grn_inside, prompts, tmp_path):
    for option in (("--prompts", prompts), ("--text-image-tokenizer", "t.json")):
        done = grn_inside("eval", "gen", tmp_path, "--reference", "r.npz", *option)
        assert (done.returncode, option[0] in done.stderr) == (2, True)
        assert "needs --text-image-network IMAGE TEXT" in done.stderr
