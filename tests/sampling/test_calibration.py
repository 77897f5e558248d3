"""Fitting the complexity-aware schedule to a generator, and finding the fit again."""

import json
from dataclasses import replace

import pytest

from grncli.errors import UsageError
from grncli.refinement import Complexity
from grncli.sampling.calibration import FILE, SAMPLES, settle_schedule
from grncli.sampling.settings import SampleSettings

GRID = (1, 4, 4)
SETTINGS = SampleSettings(
    schedule="complexity", steps=20, min_steps=6, max_steps=20, warmup_steps=3, target_steps=12.0, guidance=1.0
)
IDENTITY = {"name": "toy", "sha256": "5a" * 32}


@pytest.fixture
def settle(make_generator, tmp_path):
    network = make_generator()

    def run(settings, identity=IDENTITY):
        said = []
        schedule = settle_schedule(
            settings, tmp_path, identity, network, GRID, [0, 1, 2], relative=False, say=said.append
        )
        return schedule, " ".join(said)

    return run


def test_the_fit_meets_the_mean_and_says_what_it_found(settle):
    schedule, said = settle(SETTINGS)
    assert "12.0 steps on average" in said
    assert f"in {SAMPLES} samples" in said
    assert schedule.k > 0


def test_the_fit_is_kept_with_the_run_and_found_again(settle, tmp_path):
    fitted, _ = settle(SETTINGS)
    again, said = settle(replace(SETTINGS, target_steps=None))
    assert again == fitted
    assert "as fitted for 12 steps" in said
    assert json.loads((tmp_path / FILE).read_text())["k"] == fitted.k


def test_the_same_target_is_not_measured_twice(settle):
    settle(SETTINGS)
    assert "as fitted before" in settle(SETTINGS)[1]


@pytest.mark.parametrize("changed", [{"temperature": 1.0}, {"max_steps": 19}, {"steps": 25}, {"guidance": 2.0}])
def test_a_fit_for_other_conditions_is_not_used(settle, changed):
    settle(SETTINGS)
    schedule, said = settle(replace(SETTINGS, target_steps=None, **changed))
    assert (schedule.k, schedule.b) == (600, -547)
    assert "--target-steps fits them" in said


def test_a_fit_for_other_weights_is_not_used(settle):
    settle(SETTINGS)
    schedule, _ = settle(replace(SETTINGS, target_steps=None), {"name": "toy", "sha256": "00" * 32})
    assert schedule.k == 600


def test_given_values_are_taken_as_they_are(settle):
    settle(SETTINGS)
    schedule, said = settle(replace(SETTINGS, target_steps=None, k=40.0, b=-3.0))
    assert (schedule.k, schedule.b) == (40, -3)
    assert said == ""


def test_a_given_slope_is_kept_by_the_fit(settle):
    assert settle(replace(SETTINGS, k=33.0))[0].k == 33


def test_a_target_outside_the_range_is_refused(settle):
    with pytest.raises(UsageError, match="target_steps is 30"):
        settle(replace(SETTINGS, target_steps=30.0))


def test_a_target_and_an_offset_contradict_each_other(settle):
    with pytest.raises(UsageError, match="without --b"):
        settle(replace(SETTINGS, b=3.0))


def test_a_damaged_fit_is_as_good_as_none(settle, tmp_path):
    (tmp_path / FILE).write_text('{"conditions": [1')
    assert settle(replace(SETTINGS, target_steps=None))[0] == replace(
        Complexity(), min_steps=6, max_steps=20, warmup_steps=3, alpha=20
    )


def test_a_run_that_cannot_be_written_only_forgets(settle, tmp_path):
    (tmp_path / FILE).mkdir()
    schedule, said = settle(SETTINGS)
    assert "cannot be kept" in said
    assert schedule.k > 0
