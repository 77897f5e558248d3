"""Freed memory is kept for the time of a block, and given back behind it."""

import os
import subprocess
import sys

import pytest

from grncli.runtime import freed_memory
from grncli.runtime.freed_memory import freed_memory_kept

ALLOCATING = """
import ctypes, resource
from grncli.runtime.freed_memory import freed_memory_kept, keep_usual_memory

library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = library.malloc(size)
    ctypes.memset(memory, 1, size)
    library.free(memory)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
"""
LARGE = """
without = [faults(100 << 20) for _ in range(2)][-1]
with freed_memory_kept():
    kept = [faults(100 << 20) for _ in range(2)][-1]
    inside = resident()
print(without, kept, inside - resident())
"""
PICTURES = """
keep_usual_memory()
print([faults(1 << 20) for _ in range(2)][-1], [faults(100 << 20) for _ in range(2)][-1])
"""


def printed(code):
    """Numbers that a process of its own prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC", "GLIBC"))}
    words = [sys.executable, "-c", ALLOCATING + code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return map(int, done.stdout.split())


@pytest.mark.skipif(freed_memory._glibc() is None, reason="another C library")
def test_memory_is_not_taken_from_the_system_again_and_goes_back_behind_the_block():
    without, kept, released = printed(LARGE)
    assert kept < without / 10
    assert released > 90 << 20


@pytest.mark.skipif(freed_memory._glibc() is None, reason="another C library")
def test_the_memory_of_pictures_is_kept_and_that_of_the_largest_goes_back():
    small, large = printed(PICTURES)
    assert small < 10 < large  # of 256 pages in one, and of 25,600 in the other, or of 50 huge ones


@pytest.mark.parametrize("largest", [1 << 30, 32 << 20], ids=["newer", "before 2.35"])
def test_a_library_that_refuses_the_threshold_gets_the_largest_that_it_takes(monkeypatch, largest):
    taken = {}

    class Library:
        def mallopt(self, parameter, value):
            if parameter == freed_memory.MMAP_THRESHOLD and value > largest:
                return 0
            taken[parameter] = value
            return 1

        def malloc_trim(self, kept):
            pass

    monkeypatch.setattr(freed_memory, "_glibc", Library)
    with freed_memory_kept():
        assert taken == {freed_memory.TRIM_THRESHOLD: freed_memory.KEPT, freed_memory.MMAP_THRESHOLD: largest}


def test_elsewhere_nothing_happens(monkeypatch):
    monkeypatch.setattr(freed_memory.sys, "platform", "darwin")
    with freed_memory_kept():
        assert freed_memory._glibc() is None
