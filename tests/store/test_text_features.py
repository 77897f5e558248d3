"""Features of texts in a store: bits of bfloat16, found by digest, checked byte by byte."""

import hashlib
import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_stores import tree
from test_store_resume import killed_at

from grncli.runtime.errors import StoreError
from grncli.store import open_store, verify_store
from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import (
    from_words,
    open_feature_part,
    open_features,
    to_words,
    verify_features,
)

WIDTH = 5
SETTINGS = FeatureSettings({"name": "toy", "sha256": "3f9c" * 16}, WIDTH, "float32", 16)
COUNTS = {1: 1, 3: 7, 12: 4}  # prompts of each length


def digest(prompt):
    return hashlib.sha256(prompt.encode()).hexdigest()


def names(length):
    return [f"{length}, {number}" for number in range(COUNTS[length])]


def features(length):
    numbers = np.random.default_rng(length).normal(size=(COUNTS[length], length, WIDTH))
    return torch.from_numpy(numbers.astype(np.float32)).bfloat16().float()


def write(path, settings=SETTINGS):
    with open_feature_part(path, settings) as writer:
        for length in list(COUNTS)[writer.position :]:
            writer.append(features(length), names(length), [digest(name) for name in names(length)])
            writer.commit(writer.position + 1, "")
        writer.finish()


@pytest.fixture
def store(tmp_path, small_chunks):
    write(tmp_path / "f.zarr")
    return tmp_path / "f.zarr"


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50))
def test_words_are_the_nearest_bfloat16_with_ties_to_even(bits):
    values = np.array(bits, np.uint32).view(np.float32)
    largest = np.array(0x7F7F7FFF, np.uint32).view(np.float32)  # from the next on, the nearest is infinite
    values = values[np.abs(values) <= largest]  # which NaN is not
    words = values.view(np.uint32).astype(np.uint64)
    nearest = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
    np.testing.assert_array_equal(to_words(torch.from_numpy(values)), nearest)
    np.testing.assert_array_equal(from_words(nearest.astype(np.uint16)).numpy().view(np.uint32), nearest << 16)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3.4e38])
def test_what_has_no_finite_bfloat16_is_refused(value):
    with pytest.raises(ValueError, match="not finite"):
        to_words(torch.tensor([1.0, value]))


def test_features_are_read_by_digest_in_the_order_asked_for(store):
    found = open_features(store)
    assert (len(found), found.groups, found.width, found.complete) == (12, {"1": 1, "3": 7, "12": 4}, WIDTH, True)
    asked = [(12, 3), (3, 0), (1, 0), (3, 6), (12, 0), (3, 0)]
    read = found.read([digest(names(length)[row]) for length, row in asked])
    for (length, row), each in zip(asked, read, strict=True):
        assert torch.equal(each, features(length)[row])
    assert found.read([]) == []
    assert digest("3, 2") in found
    assert digest("3, 9") not in found
    with pytest.raises(KeyError, match=digest("no")):
        found.read([digest("3, 0"), digest("no")])
    assert torch.equal(pickle.loads(pickle.dumps(found)).read([digest("3, 1")])[0], features(3)[1])


def test_digests_that_end_in_zeros_are_told_apart(tmp_path):
    digests = ["00" * 32, "ab" + "00" * 31, "ab" + "00" * 30 + "01"]
    with open_feature_part(tmp_path / "f.zarr", SETTINGS) as writer:
        writer.append(torch.arange(3.0)[:, None, None].expand(3, 1, WIDTH), ["a", "b", "c"], digests)
        writer.commit(3, "")
    assert [each[0, 0].item() for each in open_features(tmp_path / "f.zarr").read(digests[::-1])] == [2, 1, 0]


def test_an_empty_store_has_no_prompt(tmp_path):
    with open_feature_part(tmp_path / "f.zarr", SETTINGS) as writer:
        writer.commit(0, "")
    assert open_features(tmp_path / "f.zarr").find([digest("a")]).tolist() == [-1]


def test_a_writer_stopped_anywhere_and_resumed_leaves_the_same_bytes(memory_disk, small_chunks):
    write(memory_disk / "expected")
    at, stopped = 0, True
    while stopped:
        at += 7
        path = memory_disk / f"killed-{at}"
        stopped = killed_at(path, at, write)
        write(path)
        assert tree(path) == tree(memory_disk / "expected"), f"stopped at change {at}"
    assert at > 50


def test_a_changed_byte_is_found(store):
    assert verify_features(store) == []
    chunk = store / "part-00000/3/features/c.1.0.0"
    content = bytearray(chunk.read_bytes())
    content[3] ^= 1
    chunk.write_bytes(content)
    (problem,) = verify_features(store)
    assert problem.startswith(f"{chunk} has checksum ")


def test_features_that_are_not_finite_are_found(tmp_path):
    with open_feature_part(tmp_path / "f.zarr", SETTINGS) as writer:
        words = np.full((1, 2, WIDTH), 0xFF80, np.uint16)
        writer.append_rows("2", {"features": words, "digest": np.zeros((1, 32), np.uint8)}, [{"prompt": "a"}])
        writer.commit(1, "")
    (problem,) = verify_features(tmp_path / "f.zarr")
    assert "has features that are not finite" in problem


def test_a_features_store_is_no_bit_store_and_a_bit_store_no_features_store(store, tmp_path):
    for door in (open_store, verify_store):
        with pytest.raises(StoreError, match="is a features store but not a bit store"):
            door(store)
    for attributes, kind in (('{"grn": {}}', "a bit store"), ("{}", "a Zarr group")):
        (tmp_path / "zarr.json").write_text(f'{{"attributes": {attributes}}}')
        for door in (open_features, verify_features):
            with pytest.raises(StoreError, match=f"is {kind} but not a features store"):
                door(tmp_path)
    with pytest.raises(StoreError, match="does not exist; give a features store"):
        open_features(tmp_path / "none")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("width", 0, "field width is 0, expected a whole number from 1"),
        ("max_tokens", True, "field max_tokens is True"),
        ("encoder", {"name": "toy"}, "expected name and sha256"),
        ("encoder", [], "field encoder is .*, expected an object of texts"),
        ("format", 2, "has store format 2, and this version reads format 1"),
    ],
)
def test_damaged_settings_are_named(store, field, value, words):
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"]["grn_text_features"][field] = value
    (store / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=words):
        open_features(store)


def test_any_zarr_reader_sees_them(store):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(store, mode="r")["part-00000/3"]
    assert group["features"].metadata.dimension_names == ("sample", "token", "width")
    np.testing.assert_array_equal(group["features"][:], to_words(features(3)))
