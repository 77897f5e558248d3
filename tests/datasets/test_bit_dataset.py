"""A bit store as a dataset of PyTorch: the bits of the store by number, in every form and in every kind of worker."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from grncli import BitDataset, open_store
from grncli.hbq import bits_to_index, index_to_bits, unpack
from grncli.runtime.errors import StoreError, UsageError

ALL = ("bits", "label", "index", "key", "source", "caption", "captions")


def test_a_sample_is_that_of_the_store(store):
    dataset, opened = BitDataset(store, fields=ALL, form="packed"), open_store(store)
    assert len(dataset) == 34
    for index in (0, 16, 17, 33):
        item, sample, line = dataset[index], opened[index], opened.record(index)
        assert tuple(item) == ALL
        assert item["bits"].numpy().tobytes() == sample.bits.tobytes()
        assert item["bits"].shape == sample.bits.shape
        assert (item["label"], item["index"]) == (sample.label, index)
        assert (item["key"], item["source"]) == (line["key"], line["source"])


def test_captions_are_those_of_the_source_and_the_first_is_empty_where_there_is_none(store):
    items = BitDataset(store, fields=("source", "caption", "captions"))[0:4]
    assert items[3]["captions"] == ["first of 0/2-3.png", "second"]
    assert [item["caption"] for item in items] == ["first of 0/2-0.png", "", "", "first of 0/2-3.png"]
    assert items[1]["captions"] == []


@pytest.mark.parametrize("rounds", [None, 2])
def test_every_form_holds_the_same_bits(store, rounds):
    packed, bits, index = (
        BitDataset(store, form=form, rounds=rounds)[5]["bits"] for form in ("packed", "bits", "index")
    )
    m = rounds or 3
    assert (bits.shape, index.shape, packed.shape) == ((m, 10, 1, 2, 2), (10, 1, 2, 2), (1, 2, 2, m, 2))
    assert bits.dtype == index.dtype == packed.dtype == torch.uint8
    assert np.array_equal(np.unpackbits(packed.numpy(), axis=-1, count=10), bits.permute(2, 3, 4, 0, 1))
    assert torch.equal(index, unpack(packed[None], 10)[0])
    assert torch.equal(bits_to_index(bits.flatten(0, 1)[None], m)[0], index)
    assert torch.equal(index_to_bits(index[None], m)[0].view_as(bits), bits)


def test_slices_and_negative_numbers_count_as_in_a_list(store):
    dataset = BitDataset(store, fields=("index",))
    numbers = list(range(34))
    for chosen in (slice(3, 9, 2), slice(-2, None), slice(None, None, -7), slice(40, 50)):
        assert [item["index"] for item in dataset[chosen]] == numbers[chosen]
    assert dataset[-1]["index"] == dataset[np.int64(33)]["index"] == 33
    assert [item["index"] for item in dataset.__getitems__([20, 0, 20])] == [20, 0, 20]
    assert [item["index"] for item in Subset(dataset, [4, 2])] == [4, 2]


@pytest.mark.parametrize("index", [34, -35])
def test_a_number_that_is_none_is_an_index_error_that_says_how_many_there_are(store, index):
    dataset = BitDataset(store)
    for ask in (lambda: dataset[index], lambda: dataset.__getitems__([0, index])):
        with pytest.raises(IndexError, match=rf"sample {index} of 34 in .*one.zarr: expected -34 to 33$"):
            ask()
    with pytest.raises(TypeError):
        dataset["a"]


def test_a_loop_over_a_dataset_ends(store):
    assert [item["index"] for item in BitDataset(store, fields=("index",))] == list(range(34))


def test_samples_of_several_grids_come_as_they_lie_or_one_grid_alone(mixed):
    shapes = [item["bits"].shape[1:] for item in BitDataset(mixed, form="index")]
    assert shapes == [(1, 2, 2)] * 5 + [(1, 2, 3)] * 4 + [(1, 2, 2)] * 5 + [(1, 2, 3)] * 4
    mixture = BitDataset(mixed, fields=("index", "bits")).__getitems__([17, 0, 5])
    assert [(item["index"], item["bits"].shape[-1]) for item in mixture] == [(17, 3), (0, 2), (5, 3)]
    wide = BitDataset(mixed, grid=(1, 2, 3), fields=("index", "bits"))
    assert len(wide) == 8
    assert [item["index"] for item in wide] == [5, 6, 7, 8, 14, 15, 16, 17]
    batch = next(iter(DataLoader(wide, batch_size=8)))
    assert batch["bits"].shape == (8, 3, 10, 1, 2, 3)
    with pytest.raises(IndexError, match="sample 8 of 8"):
        wide[8]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"fields": ("bits", "labels")}, UsageError, "'labels' is none of .* expected of bits, label, index"),
        ({"fields": ()}, UsageError, "fields is empty, expected some of bits, label"),
        ({"form": "planes"}, UsageError, "'planes' is none of .* expected of bits, index, packed"),
        ({"rounds": 4}, UsageError, "rounds is 4, .*one.zarr holds 3"),
        ({"grid": (1, 9, 9)}, StoreError, "has no samples of grid 1x9x9, it has 1x2x2"),
    ],
)
def test_what_a_store_does_not_have_is_refused_when_the_dataset_is_made(store, options, error, words):
    with pytest.raises(error, match=words):
        BitDataset(store, **options)


def batches(loader):
    return [{name: value.tolist() if name == "bits" else list(value) for name, value in b.items()} for b in loader]


def test_a_dataset_gives_the_same_batches_in_every_kind_of_worker_process(store):
    dataset = BitDataset(store, fields=("bits", "label", "key", "caption"))
    expected = batches(DataLoader(dataset, batch_size=8))
    assert len(expected) == 5
    assert batches(DataLoader(pickle.loads(pickle.dumps(dataset)), batch_size=8)) == expected
    for kind, workers in (("fork", 2), ("spawn", 1)):
        assert batches(DataLoader(dataset, batch_size=8, num_workers=workers, multiprocessing_context=kind)) == expected
