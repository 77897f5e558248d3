"""Stores of samples: what is opened and read for one, and those of earlier versions."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from grncli.evaluation.sampling_costs import store_cost
from grncli.runs import generators, loading, recipe_first
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stopped
from grncli.sampling import pictures, plan, sample_store
from grncli.sampling.sample_store import COLUMNS, is_sample_store, nfe_of, samples_of
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample
from grncli.store import Fingerprint, open_part, open_store, verify_store

OPTIONS = SampleOptions(steps=4, per_class=3, batch=2, guidance=2.0)
OLD = {"evaluations" if name == "nfe" else name: dtype for name, dtype in COLUMNS.items()}
GRID = (1, 4, 4)


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", 2)


@pytest.fixture(scope="module")
def generator(make_generator_run, tokenizer, tmp_path_factory):
    return make_generator_run(tmp_path_factory.mktemp("runs") / "gen", tokenizer)


@pytest.fixture
def earlier_version(monkeypatch):
    """Makes samples as versions did that called the NFE evaluations."""

    def make(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(plan, "columns_beside", lambda store: OLD)
            return sample(*arguments)

    return make


def numbers(path):
    return [entry.numbers for entry in samples_of(open_store(path))]


def bits(path):
    store = open_store(path)
    return [store[entry.place].bits.tobytes() for entry in samples_of(store)]


# Earlier versions


def test_a_store_with_evaluations_has_the_same_nfe(generator, earlier_version, tmp_path):
    old, new = (
        make(generator, tmp_path / name, OPTIONS) for make, name in ((earlier_version, "a.zarr"), (sample, "b.zarr"))
    )
    assert set(open_store(tmp_path / "a.zarr").columns) == set(OLD)
    assert set(open_store(tmp_path / "b.zarr").columns) == set(COLUMNS)
    assert old.nfe == new.nfe
    assert numbers(tmp_path / "a.zarr") == numbers(tmp_path / "b.zarr")
    found = [nfe_of(open_store(tmp_path / name).grid(GRID)) for name in ("a.zarr", "b.zarr")]
    assert np.array_equal(*found)
    costs = [store_cost(open_store(tmp_path / name), range(len(found[0]))) for name in ("a.zarr", "b.zarr")]
    assert costs[0].nfe == costs[1].nfe == found[0].mean()


@pytest.mark.parametrize("parts", [1, 2])
def test_an_interrupted_store_with_evaluations_is_resumed(generator, earlier_version, tmp_path, parts, stop_after):
    options = replace(OPTIONS, parts=parts)
    with pytest.raises(Stopped):
        earlier_version(generator, tmp_path / "s.zarr", options, Monitor(stop_after(5)))
    assert 0 < len(open_store(tmp_path / "s.zarr")) < 9
    for part in range(parts):
        summary = sample(generator, tmp_path / "s.zarr", replace(options, part=part))
    sample(generator, tmp_path / "whole.zarr", OPTIONS)
    store = open_store(tmp_path / "s.zarr")
    assert store.complete
    assert set(store.columns) == set(OLD)
    assert summary.samples == 9
    assert bits(tmp_path / "s.zarr") == bits(tmp_path / "whole.zarr")
    assert numbers(tmp_path / "s.zarr") == numbers(tmp_path / "whole.zarr")
    assert verify_store(tmp_path / "s.zarr") == []


def test_a_finished_store_with_evaluations_gets_more_samples(generator, earlier_version, tmp_path):
    earlier_version(generator, tmp_path / "s.zarr", replace(OPTIONS, per_class=1))
    assert sample(generator, tmp_path / "s.zarr", OPTIONS).made == 6
    assert len(numbers(tmp_path / "s.zarr")) == 9


def test_overwriting_a_part_keeps_the_columns_of_the_others(generator, earlier_version, tmp_path):
    for part in range(2):
        earlier_version(generator, tmp_path / "s.zarr", replace(OPTIONS, part=part, parts=2))
    before = numbers(tmp_path / "s.zarr")
    sample(generator, tmp_path / "s.zarr", replace(OPTIONS, part=0, parts=2, overwrite=True))
    assert numbers(tmp_path / "s.zarr") == before


def test_overwriting_the_whole_makes_a_new_store(generator, earlier_version, tmp_path):
    earlier_version(generator, tmp_path / "s.zarr", OPTIONS)
    sample(generator, tmp_path / "s.zarr", replace(OPTIONS, overwrite=True))
    assert set(open_store(tmp_path / "s.zarr").columns) == set(COLUMNS)


def test_a_folder_with_evaluations_is_listed_with_nfe(generator, tokenizer, earlier_version, tmp_path):
    options = replace(OPTIONS, tokenizer=str(tokenizer))
    earlier_version(generator, tmp_path / "p", options)
    sample(generator, tmp_path / "p", options)
    listed = json.loads((tmp_path / "p" / "samples.json").read_text())["samples"]
    assert [line["nfe"] for line in listed] == [each["nfe"] for each in numbers(tmp_path / "p" / "samples.zarr")]
    assert not any("evaluations" in line for line in listed)


def test_a_store_that_was_not_sampled_is_told_apart(tmp_path):
    fingerprint = Fingerprint(rounds=2, channels=4, stride=(2, 4, 4), tokenizer={}, preprocessing={}, labels=())
    with open_part(tmp_path / "s.zarr", fingerprint, columns=[("seed", "int64")]) as writer:
        writer.append(
            GRID, np.zeros((1, *GRID, 2, 1), np.uint8), [-1], [{"key": "a", "source": "a"}], seed=np.array([1])
        )
        writer.commit(1, "", 1)
        writer.finish()
    store = open_store(tmp_path / "s.zarr")
    assert not is_sample_store(store)
    with pytest.raises(UsageError, match="grn sample did not make"):
        samples_of(store)


# Once


@pytest.fixture
def calls(monkeypatch):
    """How often stores, networks and records are read."""
    counted = Counter()

    def count(owner, name, what):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: counted.update([what]) or real(*args, **options))

    count(sample_store, "open_store", "store")
    count(sample_store, "samples_of", "records")
    count(loading, "load_network", "network")
    count(recipe_first, "load_network", "network")
    return counted


@pytest.mark.parametrize("out", ["s.zarr", "pictures"])
def test_networks_stores_and_records_are_read_once(generator, tokenizer, tmp_path, calls, out):
    options = replace(OPTIONS, tokenizer=str(tokenizer), sheet=tmp_path / "sheet.png")
    sample(generator, tmp_path / out, options)
    assert calls == {"network": 2, "store": 1, "records": 1}
    calls.clear()
    sample(generator, tmp_path / out, options)
    assert calls == {"network": 2, "store": 2, "records": 1}  # before and after


def test_networks_that_are_open_are_not_opened_again(generator, tokenizer, tmp_path, calls):
    options = replace(OPTIONS, tokenizer=str(tokenizer))
    networks = {"generator": generators.open_generator(generator), "tokenizer": pictures.open_tokenizer(tokenizer)}
    sample(generator, tmp_path / "apart", options)
    calls.clear()
    sample(generator, tmp_path / "together", options, **networks)
    assert calls["network"] == 0
    assert bits(tmp_path / "apart" / "samples.zarr") == bits(tmp_path / "together" / "samples.zarr")


def test_an_open_tokenizer_is_enough_for_pictures(generator, tokenizer, tmp_path):
    sample(generator, tmp_path / "p", OPTIONS, tokenizer=pictures.open_tokenizer(tokenizer))
    assert len(list((tmp_path / "p").rglob("*.png"))) == 9
