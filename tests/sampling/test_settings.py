"""What the options of ``grn sample`` mean, and which are refused."""

import json

import pytest
import torch

from grncli.runs.generators import open_generator
from grncli.runs.tokenizers import open_tokenizer
from grncli.runtime.errors import StoreMismatch, UsageError
from grncli.sampling.plan import make_plan
from grncli.sampling.sampler import SamplingSettings
from grncli.sampling.settings import (
    SampleOptions,
    describe_settings,
    parse_classes,
    parse_interval,
)
from grncli.schedules import Complexity, Cosine, Fixed
from grncli.store import Fingerprint, open_part

LABELS = ("ant", "bee", "7")


def test_classes_are_named_or_numbered():
    assert parse_classes("bee,0", LABELS) == [1, 0]


def test_a_name_goes_before_a_number():
    assert parse_classes("7", ("7", *"abcdefg")) == [0]


def test_all_classes():
    assert parse_classes("all", LABELS) == [0, 1, 2]


def test_a_class_that_is_named_twice_counts_once():
    assert parse_classes("ant, 0,ant", LABELS) == [0]


@pytest.mark.parametrize("text", ["wasp", "3", "-1", "", "ant;bee"])
def test_an_unknown_class_is_refused(text):
    with pytest.raises(UsageError, match="there is no class"):
        parse_classes(text, LABELS)


def test_a_generator_without_classes_takes_none():
    assert parse_classes("all", ()) == [0]
    with pytest.raises(UsageError, match="without classes"):
        parse_classes("0", ())


@pytest.mark.parametrize("text", ["0.44:1", "0:1", "-0.5:1"])
def test_an_interval_is_two_ratios(text):
    low, high = text.split(":")
    assert parse_interval(text) == (float(low), float(high))


@pytest.mark.parametrize("text", ["0.5", "1:0", "0.3:0.3", "0:2", "a:b", "nan:1", "0:inf"])
def test_an_impossible_interval_is_refused(text):
    with pytest.raises(UsageError, match="guidance-interval"):
        parse_interval(text)


@pytest.mark.parametrize(
    "options",
    [
        {"min_steps": 5, "warmup_steps": 5},
        {"min_steps": 30, "max_steps": 20},
        {"steps": 5, "warmup_steps": 5},
    ],
)
def test_an_impossible_schedule_is_refused(options):
    with pytest.raises(UsageError, match="warmup"):
        SampleOptions(**options).complexity(600, -547)


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"guidance": float("inf")}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(UsageError, match="expected"):
        SampleOptions(**options).sampling_settings(Fixed(5), relative=False)


def test_options_of_the_other_schedule_are_refused():
    for options in (
        {"k": 3.0},
        {"min_steps": 9},
        {"warmup_steps": 0},
        {"target_steps": 9.0},
        {"adapt_temperature": True},
    ):
        with pytest.raises(UsageError, match="is for --schedule complexity"):
            SampleOptions(**options).first_schedule()


def test_a_generator_without_classes_cannot_be_guided():
    SampleOptions().check_guidance(has_classes=False)
    with pytest.raises(UsageError, match="without classes"):
        SampleOptions(guidance=2.0).check_guidance(has_classes=False)


@pytest.mark.parametrize(("target", "b"), [(19.0, None), (51.0, None), (30.0, 3.0)])
def test_a_target_that_cannot_be_met_is_refused(target, b):
    with pytest.raises(UsageError, match="--target-steps"):
        SampleOptions(schedule="complexity", target_steps=target, b=b).first_schedule()


# As the stores of class generators have had them from the first.
OLD_SETTINGS = {
    "guidance": 2.35,
    "guidance_interval": [0.44, 1.0],
    "temperature": 1.31,
    "adapt_temperature": False,
    "selection": "random",
    "relative": False,
    "seed": 0,
}


@pytest.mark.parametrize(
    ("schedule", "described"),
    [
        (Fixed(8), {"kind": "fixed", "count": 8, "shape": "linear"}),
        (Fixed(5, "cosine"), {"kind": "fixed", "count": 5, "shape": "cosine"}),
        (
            Complexity(412.5, -380.25),
            {
                "kind": "complexity",
                "k": 412.5,
                "b": -380.25,
                "min_steps": 20,
                "max_steps": 50,
                "warmup_steps": 5,
                "alpha": 50,
            },
        ),
    ],
)
def test_settings_are_described_as_stores_have_them(schedule, described):
    told = json.loads(json.dumps(describe_settings(SamplingSettings(schedule=schedule))))
    assert told == {"schedule": described, **OLD_SETTINGS}


def test_the_cosine_of_texts_is_told_from_that_of_classes():
    told = describe_settings(SamplingSettings(schedule=Cosine(50, 0.95)))
    assert told["schedule"] == {"kind": "cosine", "count": 50, "end": 0.95, "shift": 1.0}


@pytest.mark.parametrize("asked", [{}, {"schedule": "cosine"}, {"schedule": "complexity", "k": 3.5, "b": 2.0}])
def test_a_store_of_before_there_were_texts_resumes(make_run, make_generator_run, tmp_path, asked):
    tokenizer = make_run(tmp_path / "tokenizer", rounds=2)
    run, out = make_generator_run(tmp_path / "run", tokenizer), tmp_path / "samples.zarr"
    schedules = {
        "cosine": {"kind": "fixed", "count": 50, "shape": "cosine"},
        "complexity": {"kind": "complexity", "k": 3.5, "b": 2.0, "min_steps": 20, "max_steps": 50}
        | {"warmup_steps": 5, "alpha": 50},
        None: {"kind": "fixed", "count": 50, "shape": "linear"},
    }
    before = Fingerprint(
        rounds=2,
        channels=4,
        stride=(2, 4, 4),
        tokenizer=open_tokenizer(tokenizer).identity,
        preprocessing={
            "generator": open_generator(run).identity["sha256"],
            "weights": "ema",
            "dtype": "float32",
            "grid": [1, 4, 4],
            "classes": "all",
            "init": None,
            "keep": None,
            "schedule": schedules[asked.get("schedule")],
            **OLD_SETTINGS,
        },
        labels=("ant", "bee", "cat"),
    )
    with open_part(out, before):
        pass
    make_plan(run, out, SampleOptions(**asked))  # refuses a store of other settings
    with pytest.raises(StoreMismatch, match="temperature"):
        make_plan(run, out, SampleOptions(**asked, temperature=1.0))


def test_the_papers_schedule_is_the_default():
    assert SampleOptions().complexity(600, -547) == Complexity()
    assert int(Complexity().steps(torch.tensor([0.99]))) == 50
