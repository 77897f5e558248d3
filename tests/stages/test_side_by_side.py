"""``grn info A B``: the settings of two stores, runs or recipes that differ, and nothing else."""

import json

import pytest


@pytest.fixture(scope="module")
def places(media_dir, run_dir, make_run, make_generator_run, grn_inside, tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    places = {"tok": run_dir, "other": make_run(folder / "other", rounds=2, seed=1)}
    for name, options in {"store": (), "flipped": ("--flip", "--labels", "dirs")}.items():
        places[name] = folder / f"{name}.zarr"
        command = ("tokenize", media_dir, places[name], "--tokenizer", run_dir, "--workers", 0, *options)
        assert grn_inside(*command).returncode == 0
    places["gen"] = make_generator_run(folder / "gen", run_dir, rounds=4)
    places["recipe"] = folder / "mine.yaml"
    places["recipe"].write_text("kind: tokenizer\nrounds: 2\n")
    places["missing"], places["empty"] = folder / "missing", folder / "empty"
    places["empty"].mkdir()
    return places


@pytest.fixture(scope="module")
def compared(places, grn_inside):
    def compare(one, other):
        done = grn_inside("info", places.get(one, one), places.get(other, other), "--json")
        assert done.returncode == 0, done.stderr
        return {each["field"]: (each["one"], each["other"]) for each in json.loads(done.stdout)["differences"]}

    return compare


def test_stores_differ_by_what_they_were_made_with(compared):
    assert compared("store", "flipped") == {
        "preprocessing.flip": (False, True),
        "preprocessing.labels": ("none", "dirs"),
        "labels": ([], ["a", "b", "clips", "wide"]),
    }


def test_runs_differ_by_their_recipes(compared):
    assert compared("tok", "other") == {"rounds": (4, 2)}


def test_recipes_differ_with_the_values_that_they_leave_out(compared):
    assert compared("recipe", "tokenizer-small")["rounds"] == (2, 4)
    assert compared("recipe", "recipe") == {}


def test_a_store_and_the_run_that_made_it_do_not_differ(compared):
    assert compared("store", "tok") == {}
    found = compared("store", "other")
    assert found["rounds"] == (4, 2)
    assert found["tokenizer.sha256"][0] != found["tokenizer.sha256"][1]


def test_a_store_and_a_generator_are_compared_by_its_bits(compared):
    assert compared("store", "gen") == {"labels": ([], ["ant", "bee", "cat"])}


def test_the_table_has_a_column_for_each(places, grn_inside):
    done = grn_inside("info", places["tok"], places["other"])
    assert [line.split() for line in done.stdout.splitlines()[2:]] == [["rounds", "4", "2"]]
    assert done.stderr.strip().endswith("1 setting differs")


@pytest.mark.parametrize(
    ("one", "other", "code", "words"),
    [
        ("recipe", "store", 1, "is a recipe, which is compared with another of its kind only"),
        ("store", "missing", 1, "missing"),
        ("store", "empty", 1, "is an empty folder"),
        ("store", "tokenizer-smal", 1, "did you mean tokenizer-small"),
    ],
)
def test_what_cannot_be_compared_is_refused(places, grn_inside, one, other, code, words):
    done = grn_inside("info", places.get(one, one), places.get(other, other))
    assert words in done.stderr
    assert done.returncode in (code, 2)


def test_two_are_not_verified(places, grn_inside):
    done = grn_inside("info", places["tok"], places["other"], "--verify")
    assert (done.returncode, "--verify: checks one store or run" in done.stderr) == (2, True)
