"""Bytes of several processes reach all of them, whatever their lengths."""

import json
import subprocess
import sys

SCRIPT = """
import json, sys
import torch.distributed as dist
from grncli.runtime.processes import Processes

rank, count = int(sys.argv[1]), int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=count)
processes = Processes(rank, count)
some = processes.gather_bytes(bytes(range(rank * 100)))
none = processes.gather_bytes(b"")
documents = processes.gather_json({"rank": rank, "text": "ä" * rank})
alike = some == [bytes(range(each * 100)) for each in range(count)], none == [b""] * count
print(json.dumps([list(map(len, some)), *alike, documents]))
dist.destroy_process_group()
"""


def test_every_process_gets_the_bytes_of_all_by_rank(tmp_path):
    command = [sys.executable, "-c", SCRIPT]
    started = [
        subprocess.Popen([*command, str(rank), "3", str(tmp_path / "meet")], stdout=subprocess.PIPE, text=True)
        for rank in range(3)
    ]
    documents = [{"rank": rank, "text": "ä" * rank} for rank in range(3)]
    for process in started:
        said, _ = process.communicate(timeout=180)
        assert json.loads(said) == [[0, 100, 200], True, True, documents]
