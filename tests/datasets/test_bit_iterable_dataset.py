"""A bit store as a stream: each sample once an epoch over all ranks and workers, the same after any interruption."""

import pickle
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader

from grncli import BitIterableDataset, open_store
from grncli.datasets import bit_iterable_dataset
from grncli.runtime.errors import UsageError

MANY_WINDOWS = 200  # bytes, which hold a few blocks of three samples
BUFFERS = pytest.mark.parametrize("buffer", [1e9, MANY_WINDOWS], ids=["one window", "many windows"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(bit_iterable_dataset, "BLOCK_BYTES", 75)
    monkeypatch.setattr(bit_iterable_dataset, "_OBJECT_BYTES", 0)
    monkeypatch.setattr(bit_iterable_dataset, "_TOGETHER", 4)


def numbers(dataset):
    return [item["index"] for item in dataset]


def stream(store, **options):
    return BitIterableDataset(store, fields=("index",), **options)


def as_worker(dataset, number, count, monkeypatch):
    """What an iteration gives that believes to run in a worker process."""
    info = type("Info", (), {"id": number, "num_workers": count})
    with monkeypatch.context() as patch:
        patch.setattr(bit_iterable_dataset, "get_worker_info", lambda: info)
        return numbers(dataset)


@BUFFERS
def test_an_epoch_has_every_sample_once_in_an_order_of_its_own(store, buffer):
    dataset, orders = stream(store, buffer=buffer), []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        orders.append(numbers(dataset))
        assert sorted(orders[-1]) == list(range(34))
        assert orders[-1] != list(range(34))
    assert len({tuple(order) for order in orders}) == 3
    dataset.set_epoch(1)
    assert numbers(dataset) == orders[1]
    assert numbers(stream(store, buffer=buffer, seed=1)) != orders[0]
    assert len(dataset) == 34


def test_samples_of_a_small_buffer_lie_together(store):
    def blocks_of_six(order):
        return max(len({number // 3 for number in order[start : start + 6]}) for start in range(0, 30, 6))

    # Windows of two blocks of three samples, of which six samples meet at most two.
    assert blocks_of_six(numbers(stream(store, buffer=MANY_WINDOWS))) <= 4 < blocks_of_six(numbers(stream(store)))


@BUFFERS
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_workers_share_an_epoch(store, buffer, ranks, monkeypatch):
    whole = numbers(stream(store, buffer=buffer))
    for rank in range(ranks):
        dataset = stream(store, buffer=buffer, rank=rank, ranks=ranks, batch=4)
        assert numbers(dataset) == whole[rank::ranks]
        assert len(dataset) == len(whole[rank::ranks])
        shares = [as_worker(dataset, worker, 3, monkeypatch) for worker in range(3)]
        in_turn = [islice(shares[turn % 3], turn // 3 * 4, turn // 3 * 4 + 4) for turn in range(9)]
        assert [number for batch in in_turn for number in batch] == whole[rank::ranks]


@BUFFERS
def test_an_epoch_resumes_where_all_ranks_had_come_to_also_with_others(store, buffer):
    whole = numbers(stream(store, buffer=buffer))
    for ranks, start in ((1, 12), (2, 16), (3, 34)):
        for rank in range(ranks):
            dataset = stream(store, buffer=buffer, rank=rank, ranks=ranks, batch=4)
            dataset.set_epoch(0, start)
            assert numbers(dataset) == whole[start:][rank::ranks]


def test_drop_last_leaves_full_batches_on_every_rank(store):
    shares = [numbers(stream(store, rank=rank, ranks=3, batch=4, drop_last=True)) for rank in range(3)]
    assert [len(share) for share in shares] == [8, 8, 8]
    assert len({number for share in shares for number in share}) == 24


def test_items_are_those_of_the_store_also_of_several_grids(mixed):
    opened = open_store(mixed)
    items = list(BitIterableDataset(mixed, form="packed", fields=("bits", "label", "index", "key", "caption")))
    assert sorted(item["index"] for item in items) == list(range(18))
    for item in items:
        sample = opened[item["index"]]
        assert item["bits"].numpy().tobytes() == sample.bits.tobytes()
        assert (item["label"], item["key"]) == (sample.label, opened.record(sample.index)["key"])
    assert sorted(numbers(stream(mixed, grid=(1, 2, 3)))) == [5, 6, 7, 8, 14, 15, 16, 17]


def test_loaders_make_the_same_batches_with_any_workers_which_follow_the_epoch(store):
    def batches(dataset, **options):
        return [batch["index"].tolist() for batch in DataLoader(dataset, batch_size=4, **options)]

    dataset = stream(store, batch=4)
    alone = {}
    for epoch, start in ((0, 0), (3, 8)):
        dataset.set_epoch(epoch, start)
        alone[epoch] = batches(dataset)
    assert alone[0] != alone[3]
    dataset.set_epoch(3, 8)
    assert batches(pickle.loads(pickle.dumps(dataset))) == alone[3]
    assert batches(dataset, num_workers=1, multiprocessing_context="spawn") == alone[3]
    kept = DataLoader(dataset, batch_size=4, num_workers=2, multiprocessing_context="fork", persistent_workers=True)
    for epoch, start in ((3, 8), (0, 0)):
        dataset.set_epoch(epoch, start)
        assert [batch["index"].tolist() for batch in kept] == alone[epoch]


def test_ranks_are_those_of_the_processes_that_were_joined(store, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        assert len(stream(store)) == 34
        assert len(stream(store, rank=1, ranks=2)) == 17
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("options", [{"batch": 0}, {"rank": 2, "ranks": 2}, {"seed": -1}, {"rank": 0}, {"ranks": 2}])
def test_shares_that_cannot_be_are_refused(store, options):
    with pytest.raises(UsageError, match=r"expected a batch of 1 or more|give both, or neither"):
        stream(store, **options)


@pytest.mark.parametrize("where", [(-1, 0), (0, 35), (0, -1)])
def test_an_epoch_or_start_that_cannot_be_is_refused(store, where):
    with pytest.raises(UsageError, match="expected an epoch of 0 or more, and a start from 0 to 34"):
        stream(store).set_epoch(*where)
