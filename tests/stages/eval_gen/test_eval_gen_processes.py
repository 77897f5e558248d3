"""Samples that several processes measure together, as threads of this one."""

import threading

import numpy as np
import pytest
import torch
from compared_samples import load, place

from grncli.evaluation.feature_collection import collect
from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_sources import open_pictures
from grncli.runtime.errors import UsageError
from grncli.runtime.processes import Processes

# Several processes, as threads of this one


class Thread(Processes):
    """One of several, which meet at a barrier instead of through gloo."""

    def __init__(self, rank, count, barrier, table):
        super().__init__(rank, count)
        object.__setattr__(self, "barrier", barrier)
        object.__setattr__(self, "table", table)

    def gather_bytes(self, data):
        self.table[self.rank] = data
        self.barrier.wait(30)
        found = [self.table[rank] for rank in range(self.count)]
        self.barrier.wait(30)
        return found

    def total(self, numbers):
        return torch.from_numpy(np.sum(self.gather(numbers.double().reshape(-1).numpy()), axis=0)).reshape(
            numbers.shape
        )


def in_threads(work, count=2):
    """What ``work(processes)`` gives in each of several threads, or the error of the first that failed."""
    barrier, table = threading.Barrier(count), {}
    results, errors = {}, []

    def run(rank):
        try:
            results[rank] = work(Thread(rank, count, barrier, table))
        except threading.BrokenBarrierError:
            pass
        except Exception as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [results[rank] for rank in range(count)]


@pytest.mark.parametrize(("kind", "count"), [("folder", 5), ("store", 2), ("array", 3)])
def test_shares_add_up_to_the_figures_of_the_whole(gen, forms, real, kind, count):
    alone = gen(place(forms, kind), real)
    for found in in_threads(lambda processes: gen(place(forms, kind), real, processes=processes), count):
        assert {f.metric: f.value for f in found.figures} == pytest.approx(
            {f.metric: f.value for f in alone.figures}, rel=1e-9
        )


def test_more_processes_than_pictures_are_fine(gen, forms, real):
    alone = gen(forms / "folder", real, limit=2)
    found = in_threads(lambda processes: gen(forms / "folder", real, limit=2, processes=processes), 3)[0]
    assert found.value("fd") == pytest.approx(alone.value("fd"), rel=1e-9)


def test_sizes_that_differ_between_processes_are_refused(networks, mixed):
    with pytest.raises(UsageError, match="expected one size"):
        in_threads(
            lambda processes: collect(
                open_pictures(str(mixed), PictureReading(workers=0)), load(networks / "colours.pt"), processes=processes
            )
        )
