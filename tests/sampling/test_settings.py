"""What the options of ``grn sample`` mean, and which are refused."""

import json

import pytest
import torch

from grncli.runtime.errors import UsageError
from grncli.sampling.sampler import SamplingSettings
from grncli.sampling.settings import (
    SampleOptions,
    choose_grid,
    describe_settings,
    parse_classes,
    parse_interval,
)
from grncli.schedules import Complexity, Fixed

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


def test_the_grid_is_the_most_frequent_of_training():
    assert choose_grid(None, {"1x4x4": 3, "5x4x4": 8}) == (5, 4, 4)


@pytest.mark.parametrize("text", ["4x4", "1x0x4", "1x4x4x4", "big"])
def test_a_grid_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="--grid"):
        choose_grid(text, {"1x4x4": 3})


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


@pytest.mark.parametrize("schedule", [Fixed(5, "cosine"), Complexity()])
def test_settings_are_described_in_json(schedule):
    told = json.loads(json.dumps(describe_settings(SamplingSettings(schedule=schedule))))
    assert told["schedule"]["kind"] == ("fixed" if isinstance(schedule, Fixed) else "complexity")


def test_the_papers_schedule_is_the_default():
    assert SampleOptions().complexity(600, -547) == Complexity()
    assert int(Complexity().steps(torch.tensor([0.99]))) == 50
