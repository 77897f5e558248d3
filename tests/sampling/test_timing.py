"""The log of how long sampling took, which is no part of the samples."""

import json
from dataclasses import replace

import pytest
import torch

from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.sampling import stage
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample
from grncli.sampling.timing import TIMING, Timing, log_timing, read_timing
from grncli.store import part_name, verify_store

SETTINGS = SampleOptions(steps=3, guidance=1.0, per_class=2, batch=2)
MADE_BY = {"batch": 2, "device": "cpu", "dtype": "float32"}


@pytest.fixture(scope="module")
def trained(make_generator_run, make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return make_generator_run(folder / "gen", make_run(folder / "tok", 2))


def logged(store, part=0):
    return [json.loads(line) for line in (store / part_name(part) / TIMING).read_text().splitlines()]


def test_a_run_that_made_samples_leaves_a_line(trained, tmp_path):
    sample(trained, tmp_path / "s.zarr", SETTINGS)
    (line,) = logged(tmp_path / "s.zarr")
    assert line.pop("seconds") > 0
    assert line == {"samples": 6, **MADE_BY, "threads": torch.get_num_threads(), "torch": torch.__version__}


def test_the_batch_that_was_chosen_is_told(trained, tmp_path):
    sample(trained, tmp_path / "s.zarr", replace(SETTINGS, batch=None))
    assert logged(tmp_path / "s.zarr")[0]["batch"] > 6


def test_a_run_that_made_nothing_leaves_none(trained, tmp_path):
    for _ in range(2):
        sample(trained, tmp_path / "s.zarr", SETTINGS)
    assert len(logged(tmp_path / "s.zarr")) == 1


def test_a_stopped_run_counts_the_samples_it_saved(trained, tmp_path, stop_after):
    with pytest.raises(Stopped):
        sample(trained, tmp_path / "s.zarr", SETTINGS, Monitor(stop_after(5)))
    sample(trained, tmp_path / "s.zarr", SETTINGS)
    first, second = (line["samples"] for line in logged(tmp_path / "s.zarr"))
    assert 0 < first < 6
    assert first + second == 6


def test_a_run_that_failed_counts_the_samples_it_saved(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "COMMIT_SECONDS", 0.0)

    def report(done, total, note):
        if done:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        sample(trained, tmp_path / "s.zarr", SETTINGS, Monitor(progress=report))
    assert [line["samples"] for line in logged(tmp_path / "s.zarr")] == [SETTINGS.batch]


def test_a_log_that_cannot_be_written_ends_no_run(trained, tmp_path):
    sample(trained, tmp_path / "s.zarr", replace(SETTINGS, per_class=1))
    (tmp_path / "s.zarr" / part_name(0) / TIMING).unlink()
    (tmp_path / "s.zarr" / part_name(0) / TIMING).mkdir()
    assert sample(trained, tmp_path / "s.zarr", SETTINGS).made == 3


def test_a_store_with_a_log_is_sound_and_overwriting_takes_the_log_away(trained, tmp_path):
    sample(trained, tmp_path / "s.zarr", SETTINGS)
    assert verify_store(tmp_path / "s.zarr") == []
    sample(trained, tmp_path / "s.zarr", replace(SETTINGS, seed=1, overwrite=True))
    assert [line["samples"] for line in logged(tmp_path / "s.zarr")] == [6]


def test_seconds_per_sample_are_of_all_parts_and_runs(tmp_path):
    for part, samples, seconds in ((0, 2, 3.0), (0, 1, 2.0), (3, 7, 5.0)):
        directory = tmp_path / part_name(part)
        directory.mkdir(exist_ok=True)
        log_timing(directory, samples=samples, seconds=seconds, **MADE_BY)
    assert read_timing(tmp_path) == Timing(10, 10.0)
    assert read_timing(tmp_path).seconds_per_sample == 1.0


def test_a_store_without_a_log_has_no_timing(tmp_path):
    (tmp_path / part_name(0)).mkdir()
    assert read_timing(tmp_path) is None


@pytest.mark.parametrize("torn", ['{"samples": 9, "sec', '{"samples": 9}', "[]", "\x00\x00"])
def test_a_line_that_was_cut_off_is_passed_over_and_spoils_no_other(tmp_path, torn):
    directory = tmp_path / part_name(0)
    directory.mkdir()
    log_timing(directory, samples=2, seconds=1.0, **MADE_BY)
    with (directory / TIMING).open("a") as file:
        file.write(torn)
    assert read_timing(tmp_path) == Timing(2, 1.0)
    log_timing(directory, samples=2, seconds=2.0, **MADE_BY)
    assert read_timing(tmp_path) == Timing(4, 3.0)


@pytest.mark.parametrize(
    "line",
    ['{"samples": -1, "seconds": 1}', '{"samples": 1e999, "seconds": 1}', '{"samples": 1, "seconds": NaN}', "[" * 9000],
)
def test_a_line_that_says_no_time_is_passed_over(tmp_path, line):
    part = tmp_path / "part-00000"
    part.mkdir()
    (part / "timing.jsonl").write_text(f'{line}\n{{"samples": 2, "seconds": 3.0, "note": "a\u2028b"}}\n')
    found = read_timing(tmp_path)
    assert (found.samples, found.seconds) == (2, 3.0)
