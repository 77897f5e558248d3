"""Processes that run together: nothing of their connection is left when they part."""

import subprocess
import sys

import pytest

PARTS = """
import os
from pathlib import Path
import torch
from grncli.runtime.launch import read_launch
from grncli.runtime.processes import joined
from grncli.runtime.stopping import Stop

weight = torch.nn.Parameter(torch.ones(4))
with joined(read_launch(os.environ), torch.device("cpu"), Stop()) as processes:
    weight.sum().backward()
    processes.average_gradients([weight])
    torch.optim.AdamW([weight]).step()  # imports much of torch while the processes are joined
threads = sorted(file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm"))
assert not [name for name in threads if "gloo" in name], threads
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lists the process's threads in /proc")
def test_no_thread_of_the_connection_outlives_it() -> None:
    """Such a thread can abort the process while Python shuts down, after all work was done."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    result = subprocess.run(
        [*command, sys.executable, "-c", PARTS], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
