"""Samples against their own prompts, wherever these are recorded: pictures, clips, archives of them, lists."""

import json

import numpy as np
import pytest
import torch

from grncli.evaluation.feature_collection import NetworkOptions
from grncli.evaluation.generation import GenSettings, generation
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_sources import open_pictures
from grncli.evaluation.recorded_prompts import paired_prompts
from grncli.evaluation.text_image_scores import TextImageOptions, TextImageScorer
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.errors import UsageError
from grncli.runtime.processes import Processes

RED, YELLOW, BLUE = (255, 0, 0), (255, 255, 0), (0, 0, 255)
HALF = 100 / np.sqrt(2)
# File, its colour, the prompt it was made of, and their score.
MADE = [
    ("00000/00000.png", RED, "a red star", 100),
    ("00000/00001.png", YELLOW, "a red star", HALF),
    ("00001/00000.png", RED, "blue", 0),
    ("00002/00000.png", BLUE, "blue and green", HALF),
]
READING = PictureReading(workers=0)


def plain(colour, height=16, width=16):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def foreign(tmp_path):
    """The pictures alone."""
    for name, colour, _, _ in MADE:
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / "p" / name, plain(colour))
    return tmp_path / "p"


@pytest.fixture
def folder(foreign):
    """The same with the list of ``grn sample``, in which a prompt may have been rewritten."""
    other = {"rewritten": "green", "final_prompt": "<T2I>green"}
    lines = [{"file": name, "prompt": prompt, **other} for name, _, prompt, _ in MADE]
    (foreign / "samples.json").write_text(json.dumps({"settings": {}, "samples": lines[::-1]}))
    return foreign


@pytest.fixture
def listed(tmp_path):
    """A file with the prompt of each picture in the order of their names."""
    (tmp_path / "prompts.txt").write_text("".join(f"{prompt}\n" for _, _, prompt, _ in MADE))
    return tmp_path / "prompts.txt"


@pytest.fixture
def gen(colour_networks):
    def measure(samples, reference=None, *, metrics=None, prompts=None, networks=None, **reading):
        options = TextImageOptions(image=colour_networks[0], text=colour_networks[1], prompts=prompts)
        read, networks = PictureReading(workers=0, **reading), networks or NetworkOptions()
        settings = GenSettings(reading=read, metrics=metrics, networks=networks, text_image=options)
        return generation(str(samples), reference, settings)

    return measure


def test_samples_are_scored_by_the_prompts_that_the_user_gave(gen, folder):
    measured, scores = gen(folder), [score for *_, score in MADE]
    (figure,) = measured.figures
    assert (figure.metric, figure.detail) == ("text-image", "4 samples of 3 prompts, 100 max(cos, 0)")
    assert (figure.value, figure.deviation) == pytest.approx((np.mean(scores), np.std(scores)), rel=1e-6)
    assert (measured.reference, measured.samples["samples"]) == (None, 4)
    assert measured.to_json()["text_image"]["prompt"] == "as the user gave it"
    assert measured.to_json()["text_image"]["image"]["name"] == "image.pt"


def test_pictures_without_records_are_scored_by_a_list(gen, foreign, listed):
    assert gen(foreign, prompts=listed).value("text-image") == pytest.approx(np.mean([s for *_, s in MADE]))


def test_pictures_of_an_array_are_scored_by_a_list(gen, listed, tmp_path):
    np.savez(tmp_path / "a.npz", arr_0=np.stack([plain(colour) for _, colour, _, _ in MADE]))
    assert gen(tmp_path / "a.npz", prompts=listed).value("text-image") == pytest.approx(np.mean([s for *_, s in MADE]))


def test_pictures_of_several_sizes_are_scored(gen, folder):
    write_png(folder / MADE[0][0], plain(RED, 16, 32))
    measured = gen(folder)
    assert measured.samples["picture"] is None
    assert measured.value("text-image") == pytest.approx(np.mean([score for *_, score in MADE]))


@pytest.mark.parametrize("selection", [{"limit": 2}, {"sample": 2}, {"sample": 3}])
@pytest.mark.parametrize("recorded", [True, False])
def test_selected_pictures_keep_their_prompts(folder, listed, selection, recorded):
    if not recorded:
        (folder / "samples.json").unlink()
    pictures = open_pictures(str(folder), PictureReading(workers=0, **selection))
    prompts = {name: prompt for name, _, prompt, _ in MADE}
    expected = [prompts[source.relative] for source in pictures.sources]
    assert paired_prompts(pictures, None if recorded else listed) == expected


def test_prompts_of_a_session_lie_in_folders_of_their_own(tmp_path):
    for number, prompt in enumerate(["red", "blue"]):
        (tmp_path / f"0000{number}" / "00000").mkdir(parents=True)
        write_png(tmp_path / f"0000{number}" / "00000" / "00000.png", plain(RED))
        lines = [{"file": "00000/00000.png", "prompt": prompt}]
        (tmp_path / f"0000{number}" / "samples.json").write_text(json.dumps({"samples": lines}))
    assert paired_prompts(open_pictures(str(tmp_path), READING), None) == ["red", "blue"]


def test_a_clip_counts_with_the_mean_over_its_frames(gen, tmp_path):
    frames = np.stack([plain(RED, 32, 32)] * 3 + [plain(BLUE, 32, 32)] * 2)
    write_mp4(tmp_path / "clip.mp4", frames, 8)
    (tmp_path / "p.txt").write_text("red\n")
    assert gen(tmp_path / "clip.mp4", prompts=tmp_path / "p.txt").value("text-image") == pytest.approx(60, abs=2)


class OneOfTwo(Processes):
    """The second of two processes; what the first has measured is known."""

    def __init__(self, other):
        super().__init__(rank=1, count=2)
        object.__setattr__(self, "other", other)

    def gather(self, vector):
        return [np.array(self.other, np.float64), vector]


def test_processes_merge_their_scores(colour_networks, folder):
    options = TextImageOptions(image=colour_networks[0], text=colour_networks[1])
    scorer = TextImageScorer.open(open_pictures(str(folder), READING), options, "cpu")
    scorer.add(3, torch.eye(3).double()[:1])  # red, against blue and green
    merged = scorer.score(OneOfTwo([0.0, 100.0, 1.0, 50.0]))
    assert (merged.mean, merged.samples, merged.prompts) == (50, 3, 2)


# What is refused


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (None, "records no prompt of 4 of its 4 pictures; expected those of grn sample, or --prompts FILE"),
        (MADE[:3], "records no prompt of 1 of its 4 pictures"),
    ],
)
def test_pictures_without_prompts_are_refused(gen, foreign, lines, words):
    if lines is not None:
        samples = [{"file": name, "prompt": prompt} for name, _, prompt, _ in lines]
        (foreign / "samples.json").write_text(json.dumps({"samples": samples}))
    with pytest.raises(UsageError, match=words):
        gen(foreign)


def test_a_list_that_does_not_fit_is_refused(gen, folder, listed):
    with pytest.raises(UsageError, match="records the prompts of its pictures; leave the option out"):
        gen(folder, prompts=listed)
    (folder / "samples.json").unlink()
    listed.write_text("red\nblue\n")
    with pytest.raises(UsageError, match=r"prompts\.txt: has 2 prompts, and .* 4 pictures; expected one for each"):
        gen(folder, prompts=listed)


@pytest.mark.parametrize("document", ["{", "[]", '{"samples": [{"prompt": "red"}]}', '{"samples": 3}'])
def test_a_damaged_record_is_refused(gen, foreign, document):
    (foreign / "samples.json").write_text(document)
    with pytest.raises(UsageError, match=r"samples\.json.*run the same grn sample again"):
        gen(foreign)


def test_metrics_and_what_they_compare_with_go_together(gen, folder, tmp_path):
    def refused(**settings):
        with pytest.raises(UsageError) as told:
            generation(str(folder), settings.pop("reference", None), GenSettings(reading=READING, **settings))
        return str(told.value)

    assert "nothing to compare with" in refused()
    assert refused(metrics=("kid",)).startswith("--metrics kid compares with real pictures")
    assert refused(metrics=("text-image",)).startswith("--metrics text-image needs --text-image-network")
    with pytest.raises(UsageError, match="which --metrics leaves out"):
        gen(folder, metrics=("is",))
    with pytest.raises(UsageError, match="text-image compares with prompts alone; leave the option out"):
        gen(folder, "ref", metrics=("text-image",))
    with pytest.raises(UsageError, match="--features inception: text-image is by --text-image-network alone"):
        gen(folder, networks=NetworkOptions(features="inception"))
    np.savez(tmp_path / "s.npz", mu=np.zeros(2), sigma=np.eye(2))
    with pytest.raises(UsageError, match="holds statistics, give the pictures themselves"):
        gen(tmp_path / "s.npz")
