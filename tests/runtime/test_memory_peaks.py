"""The most memory a process has had."""

import subprocess
import sys

import pytest

from grncli.runtime.memory_peaks import forget_peak, peak_of_process, peaks_of_children

LARGE = 200_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less")
def test_a_peak_counts_what_was_freed_until_it_is_forgotten():
    forget_peak()
    before = peak_of_process()
    block = bytearray(LARGE)
    block[::4096] = b"1" * len(block[::4096])
    del block
    assert peak_of_process() > before + 0.9 * LARGE
    forget_peak()
    if peak_of_process() < before + 0.5 * LARGE:  # where the system allows it
        assert peak_of_process() < before + 0.1 * LARGE


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less")
def test_children_are_told_while_they_run():
    program = "print('begun', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()  # before it, what runs may still be the copy of this process that becomes Python
    assert peaks_of_children()[child.pid] > 1e6
    child.communicate(b"\n")
    assert child.pid not in peaks_of_children()
