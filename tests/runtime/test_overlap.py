"""Overlapping stages: same items, same order, bounded, and no thread or generator left behind."""

import contextlib
import itertools
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grncli.runtime.overlap import BackgroundWriter, Prefetcher, in_threads

PATIENCE = 5  # seconds after which a thread that should have moved is taken to be stuck


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "nothing moved"
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = threading.active_count()
    yield
    wait_until(lambda: threading.active_count() <= before)


# Prefetcher


@settings(max_examples=30)
@given(st.lists(st.none() | st.integers()), st.integers(1, 5))
def test_items_arrive_in_order(items, depth):
    with Prefetcher(items, depth) as arriving:
        assert list(arriving) == items


def test_items_are_drawn_ahead():
    drawn = []
    with Prefetcher((drawn.append(i) or i for i in range(10)), depth=3) as arriving:
        next(arriving)
        wait_until(lambda: len(drawn) >= 4)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_items_wait(depth):
    drawn = []
    with Prefetcher((drawn.append(i) or i for i in range(100)), depth) as arriving:
        for taken, _ in enumerate(arriving, start=1):
            time.sleep(0.001)
            assert len(drawn) <= taken + depth + 1  # and one in the thread's hand
            if taken == 20:
                break


def failing_after(count):
    yield from range(count)
    raise ValueError("broken")


@pytest.mark.parametrize("count", [0, 1, 7])
def test_an_exception_arrives_after_the_items_before_it(count):
    with Prefetcher(failing_after(count)) as arriving:
        before = list(itertools.islice(arriving, count))
        with pytest.raises(ValueError, match="broken"):
            next(arriving)
    assert before == list(range(count))


def test_what_cannot_be_iterated_raises_instead_of_hanging():
    with Prefetcher(5) as arriving:
        with pytest.raises(TypeError, match="not iterable"):
            next(arriving)


def endless(closed):
    try:
        number = 0
        while True:
            yield number
            number += 1
    finally:
        closed.append(threading.current_thread())


@pytest.mark.parametrize("used", [0, 1, 10])
def test_leaving_early_closes_the_generator(used):
    closed = []
    with Prefetcher(endless(closed)) as arriving:
        for _ in range(used):
            next(arriving)
    assert len(closed) == 1


def test_leaving_by_an_exception_closes_the_generator():
    closed = []
    with contextlib.suppress(ValueError), Prefetcher(endless(closed)) as arriving:
        next(arriving)
        raise ValueError("broken")
    assert len(closed) == 1


def test_leaving_ends_the_thread():
    before = set(threading.enumerate())
    with Prefetcher(endless([])) as arriving:
        next(arriving)
    assert set(threading.enumerate()) <= before


def test_an_exception_nobody_met_is_dropped_on_leaving():
    with Prefetcher(failing_after(1)) as arriving:
        assert next(arriving) == 0


def test_a_consumer_that_waits_can_leave():
    gate, asked = threading.Event(), []

    def stalling():
        yield 1
        gate.wait(2 * PATIENCE)
        yield 2

    def stop_when(waited):
        asked.append(waited)
        return waited > 0.25

    began = time.monotonic()
    with Prefetcher(stalling(), stop_when=stop_when, abandon=gate.set) as arriving:
        assert list(arriving) == [1]
    assert time.monotonic() - began < PATIENCE
    assert len(asked) > 1


def test_items_that_are_ready_arrive_before_a_stop():
    prefetcher = Prefetcher(range(20), depth=30, stop_when=lambda waited: True)
    with prefetcher as arriving:
        wait_until(lambda: not prefetcher._thread.is_alive())
        assert list(arriving) == list(range(20))


def test_items_drawn_to_their_end_are_not_abandoned():
    abandoned = []
    prefetcher = Prefetcher([1, 2], abandon=lambda: abandoned.append(1))
    with prefetcher as arriving:
        assert list(arriving) == [1, 2]
        wait_until(lambda: not prefetcher._thread.is_alive())
    assert abandoned == []


# BackgroundWriter


def test_calls_are_carried_out_in_order():
    done = []
    with BackgroundWriter() as writer:
        for number in range(50):
            writer.submit(lambda number=number: done.append(number))
        writer.wait()
    assert done == list(range(50))


def test_calls_are_carried_out_on_another_thread():
    threads = []
    with BackgroundWriter() as writer:
        writer.submit(lambda: threads.append(threading.current_thread()))
        writer.wait()
    assert threads[0] is not threading.current_thread()


def test_submit_does_not_wait_while_there_is_room():
    gate = threading.Event()
    with BackgroundWriter(depth=3) as writer:
        for _ in range(3):
            writer.submit(lambda: gate.wait(PATIENCE))
        waited = gate.is_set()
        gate.set()
        writer.wait()
    assert not waited


@pytest.mark.parametrize("depth", [1, 3])
def test_submit_waits_while_too_many_are_queued(depth):
    begun, finished = [], []
    with BackgroundWriter(depth) as writer:
        for number in range(10):
            begun.append(number)
            writer.submit(lambda number=number: (time.sleep(0.002), finished.append(number)))
            assert len(begun) - len(finished) <= depth
        writer.wait()


def broken():
    raise ValueError("broken")


def test_wait_raises_the_error_of_a_call():
    with BackgroundWriter() as writer:
        writer.submit(broken)
        with pytest.raises(ValueError, match="broken"):
            writer.wait()


def test_a_later_submit_raises_the_error_of_a_call():
    with BackgroundWriter(depth=1) as writer:
        writer.submit(broken)
        with pytest.raises(ValueError, match="broken"):
            writer.submit(lambda: None)


def test_leaving_waits_for_the_call_under_way():
    begun, gate, done = threading.Event(), threading.Event(), []
    with BackgroundWriter() as writer:
        writer.submit(lambda: (begun.set(), gate.wait(PATIENCE), done.append(1)))
        assert begun.wait(PATIENCE)
        threading.Timer(0.02, gate.set).start()
    assert done == [1]


def test_leaving_by_an_exception_drops_the_calls_still_queued():
    begun, gate, done = threading.Event(), threading.Event(), []
    with contextlib.suppress(ValueError), BackgroundWriter() as writer:
        writer.submit(lambda: (begun.set(), gate.wait(PATIENCE)))
        writer.submit(lambda: done.append(1))
        assert begun.wait(PATIENCE)
        threading.Timer(0.02, gate.set).start()
        raise ValueError("broken")
    assert done == []


def test_calls_in_threads_give_their_results_in_order():
    both = threading.Barrier(2)

    def call(number):
        both.wait(PATIENCE)  # two run at the same time, or none ends
        return number * number

    assert list(in_threads(call, range(40))) == [number * number for number in range(40)]


@pytest.mark.parametrize("count", [1, 200])
def test_an_error_of_a_call_in_a_thread_comes_in_its_place(count):
    called, got = [], []

    def call(number):
        called.append(number)
        if number == 0:
            raise ValueError("broken")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="broken"):
        got += in_threads(call, range(count))
    assert got == []
    assert len(called) <= max(1, count // 2)
