"""Whether bits and a network belong together."""

from dataclasses import replace

import pytest

from grncli.runs.fitting import BitFormat, require_fit
from grncli.runtime.errors import StoreMismatch

TOK, OTHER = {"name": "tok", "sha256": "3f9c" * 16}, {"name": "other", "sha256": "81d0" * 16}
STORE = BitFormat(
    owner="s.zarr", origin="s.zarr was made by tokenizer", tokenizer=TOK, rounds=4, channels=16, stride=(1, 8, 8)
)
GENERATOR = replace(STORE, owner="the generator", origin="the generator learned the bits of")


def refusal(bits, wanted, *, alike=False):
    with pytest.raises(StoreMismatch) as caught:
        require_fit(bits, wanted, "give another store", alike=alike)
    return str(caught.value)


def test_bits_of_the_same_tokenizer_and_sizes_fit():
    require_fit(STORE, GENERATOR, "")
    require_fit(STORE, GENERATOR, "", alike=True)


def test_another_tokenizer_is_refused_with_both_names():
    assert refusal(STORE, replace(GENERATOR, tokenizer=OTHER)) == (
        "s.zarr was made by tokenizer tok (3f9c3f9c…), and the generator learned the bits of other (81d081d0…); "
        "give another store"
    )


def test_a_renamed_tokenizer_is_the_same_one():
    require_fit(STORE, replace(GENERATOR, tokenizer={**TOK, "name": "moved"}), "", alike=True)


def test_a_network_that_does_not_know_its_tokenizer_takes_any():
    require_fit(STORE, replace(GENERATOR, tokenizer={}), "")


def test_bits_of_an_unknown_tokenizer_fit_no_known_one():
    assert "tokenizer None (None…)" in refusal(replace(STORE, tokenizer={}), GENERATOR)


def test_stores_of_a_known_and_an_unknown_tokenizer_are_not_alike():
    refusal(STORE, replace(STORE, tokenizer={}), alike=True)
    require_fit(replace(STORE, tokenizer={}), replace(STORE, tokenizer={}), "", alike=True)


def test_more_rounds_fit_and_fewer_do_not():
    require_fit(STORE, replace(GENERATOR, rounds=2), "")
    assert refusal(STORE, replace(GENERATOR, rounds=6)) == (
        "s.zarr has rounds=4, and the generator rounds=6; give another store"
    )
    assert "rounds=4" in refusal(STORE, replace(GENERATOR, rounds=2), alike=True)


def test_every_size_that_differs_is_named():
    wanted = replace(GENERATOR, tokenizer={}, rounds=6, channels=8, stride=(4, 8, 8))
    assert (
        "has rounds=4 and channels=16 and stride=[1, 8, 8], and the generator rounds=6 and channels=8 and "
        "stride=[4, 8, 8]; give another store"
    ) in refusal(STORE, wanted)


@pytest.mark.parametrize("changes", [{"channels": 8}, {"stride": (1, 4, 4)}])
def test_other_sizes_under_the_name_of_one_tokenizer_are_damage(changes):
    assert "both name the same tokenizer, so one of them is damaged" in refusal(STORE, replace(GENERATOR, **changes))


def test_sizes_that_one_side_leaves_open_are_not_compared():
    require_fit(replace(STORE, rounds=None), replace(GENERATOR, channels=None, stride=None), "")
