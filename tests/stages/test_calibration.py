"""Fitting the complexity-aware schedule to a generator, and finding the fit again."""

import json
import shutil
from dataclasses import replace

import pytest

from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished
from grncli.sampling.calibration import SAMPLES, settle_schedule
from grncli.sampling.plan import make_plan
from grncli.sampling.settings import SampleOptions
from grncli.schedules import Complexity

FILE = "schedule.json"
SETTINGS = SampleOptions(
    schedule="complexity", steps=20, min_steps=6, max_steps=20, warmup_steps=3, target_steps=12.0, guidance=1.0
)


@pytest.fixture(scope="module")
def trained(make_run, make_generator_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    return make_generator_run(folder / "gen", make_run(folder / "tok", rounds=2))


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "gen")


@pytest.fixture
def settle(run, tmp_path):
    def settle(settings, stop=None):
        said = []
        plan = make_plan(run, tmp_path / "s.zarr", settings)
        return settle_schedule(plan, Monitor(stop or Stop(), say=said.append)), " ".join(said)

    return settle


def test_the_fit_meets_the_mean_and_says_what_it_found(settle):
    schedule, said = settle(SETTINGS)
    assert "12.0 steps on average" in said
    assert f"in {SAMPLES} samples" in said
    assert schedule.k > 0


def test_the_fit_is_kept_with_the_run_and_found_again(settle, run):
    fitted, _ = settle(SETTINGS)
    again, said = settle(replace(SETTINGS, target_steps=None))
    assert again == fitted
    assert "as fitted for 12 steps" in said
    assert json.loads((run / FILE).read_text())["k"] == fitted.k


def test_the_same_target_is_not_measured_twice(settle):
    settle(SETTINGS)
    assert "as fitted before" in settle(SETTINGS)[1]


@pytest.mark.parametrize(
    "changed",
    [{"temperature": 1.0}, {"max_steps": 19}, {"steps": 25}, {"guidance": 2.0}, {"classes": "bee"}, {"grid": "1x2x2"}],
)
def test_a_fit_for_other_conditions_is_not_used(settle, changed):
    settle(SETTINGS)
    schedule, said = settle(replace(SETTINGS, target_steps=None, **changed))
    assert (schedule.k, schedule.b) == (600, -547)
    assert "--target-steps fits them" in said


def test_a_fit_for_other_weights_is_not_used(settle, run, make_generator_run, make_run, tmp_path):
    settle(SETTINGS)
    other = make_generator_run(tmp_path / "other", make_run(tmp_path / "tok", rounds=2), seed=1)
    shutil.copy(run / FILE, other / FILE)
    plan = make_plan(other, tmp_path / "s.zarr", replace(SETTINGS, target_steps=None))
    assert settle_schedule(plan, Monitor()).k == 600


def test_given_values_are_taken_as_they_are(settle):
    settle(SETTINGS)
    schedule, said = settle(replace(SETTINGS, target_steps=None, k=40.0, b=-3.0))
    assert (schedule.k, schedule.b) == (40, -3)
    assert said == ""


def test_a_given_slope_is_kept_by_the_fit(settle):
    assert settle(replace(SETTINGS, k=33.0))[0].k == 33


def test_a_target_outside_the_range_is_refused(settle):
    with pytest.raises(UsageError, match="target-steps 30: expected 6 to 20"):
        settle(replace(SETTINGS, target_steps=30.0))


def test_a_target_and_an_offset_contradict_each_other(settle):
    with pytest.raises(UsageError, match="without --b"):
        settle(replace(SETTINGS, b=3.0))


def test_a_damaged_fit_is_as_good_as_none(settle, run):
    (run / FILE).write_text('{"conditions": [1')
    assert settle(replace(SETTINGS, target_steps=None))[0] == replace(
        Complexity(), min_steps=6, max_steps=20, warmup_steps=3, alpha=20
    )


def test_a_run_that_cannot_be_written_only_forgets(settle, run):
    (run / FILE).mkdir()
    schedule, said = settle(SETTINGS)
    assert "cannot be kept" in said
    assert schedule.k > 0


def test_a_stop_is_heard_while_entropies_are_measured(settle, run):
    with pytest.raises(Unfinished, match="--max-time: stopped while entropies were measured"):
        settle(SETTINGS, Stop(max_time=0.0))
    assert not (run / FILE).exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 5000, "cannot be read as JSON"),
        ('{"target_steps": 12, "k": "1e400", "b": 0, "conditions": {}}', "field k is '1e400'"),
        ('{"target_steps": 12, "k": NaN, "b": 0, "conditions": {}}', "field k is nan"),
        ('{"target_steps": 12, "k": 1, "b": 0, "conditions": []}', "field conditions is []"),
    ],
)
def test_a_kept_fit_that_is_damaged_is_named_and_left_out_of_account(settle, run, content, words):
    (run / FILE).write_text(content)
    schedule, said = settle(replace(SETTINGS, target_steps=None))
    assert words in said
    assert f"{FILE}" in said
    assert (schedule.k, schedule.b) == (Complexity.k, Complexity.b)
