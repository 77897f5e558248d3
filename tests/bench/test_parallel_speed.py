"""Steps of two processes against those of one, at equal local work: pytest -m bench -s FILE.

Two processes on two cores are slower than one for three reasons, which are told apart: what the cores share (two
processes that know nothing of each other, side by side), the gradients on their way, and waiting for the slower one.
"""

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "stages" / "parallel"))

from parallel_cases import fork_together, meeting, run_program

from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.runs.generator_recipe import Bits, GeneratorRecipe
from grncli.runtime.processes import SINGLE_PROCESS, Processes
from grncli.training.gradient_averaging import GradientAverager
from grncli.training.loop import TrainingContext, make_states, optimize
from grncli.training.objective import Batch
from grncli.training.refinement_objective import RefinementObjective
from grncli.training.sharding import WHOLE, Sharding

pytestmark = pytest.mark.bench

NETWORK = ClassTransformerConfig(depth=6, width=512, heads=8, rounds=4, channels=16, classes=1000)  # 30 M parameters
SAMPLES, GRID = 8, (1, 16, 16)  # of each process
STEPS = 5  # behind one that warms up


@dataclass
class Drawn:
    """In the place of a loader: the same batch for ever."""

    batch: int = SAMPLES
    epoch_samples: int = SAMPLES


def measure(way: str, processes: Processes) -> dict[str, float]:
    """Median seconds of a step, of waiting for gradients in it, and of sending as many while nothing else happens.

    ``hidden`` is the share of the gradients that are averaged when the backward pass ends.
    """
    torch.manual_seed(0)
    bits = Bits(tokenizer={}, stride=(1, 16, 16), labels=tuple(map(str, range(1000))), grids={"1x16x16": SAMPLES})
    recipe = GeneratorRecipe(network=NETWORK, bits=bits)
    objective = RefinementObjective(recipe, ClassTransformer(NETWORK), Drawn(), torch.device("cpu"))
    sharding = WHOLE
    if way == "fsdp":
        sharding = Sharding(kind=way, machines=(tuple(range(processes.count)),))
    context = TrainingContext(device=torch.device("cpu"), processes=processes, sharding=sharding)
    states = make_states(objective, context)
    packed = torch.randint(0, 256, (SAMPLES, *GRID, 4, 2), dtype=torch.uint8)
    numbers = torch.arange(SAMPLES)
    batch = Batch(packed, ("drawn",) * SAMPLES, numbers, numbers)
    waited, hidden, finish = [], [], GradientAverager.finish

    def timed_finish(averager: GradientAverager) -> None:
        late = sum(each.numel() for bucket in averager._buckets[averager._next :] for each in bucket)
        late += sum(sent.values.numel() for sent in averager._sent if not sent.work.is_completed())
        hidden.append(1 - late / sum(each.numel() for bucket in averager._buckets for each in bucket))
        began = time.perf_counter()
        finish(averager)
        waited.append(time.perf_counter() - began)

    GradientAverager.finish = timed_finish  # type: ignore[method-assign]
    steps = []
    for step in range(STEPS + 1):
        processes.wait()
        began = time.perf_counter()
        optimize(states, batch, step, STEPS + 1, context)
        steps.append(time.perf_counter() - began)
    sent = []
    if processes.count > 1 and way == "ddp":
        numbers = torch.ones(sum(parameter.numel() for parameter in states[0].module.parameters()))
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            processes.start_sum(numbers).wait()
            sent.append(time.perf_counter() - began)
    found = {"step": steps, "waited": waited, "hidden": hidden, "sent": sent}
    return {name: statistics.median(values[1:]) for name, values in found.items() if values}


def main(way: str, out: Path) -> None:
    with meeting() as processes:
        # Side by side they have met only to begin together.
        own = SINGLE_PROCESS if way == "side-by-side" else processes
        processes.wait()
        (out / f"{way}-{processes.count}-{processes.rank}").write_text(json.dumps(measure(way, own)))


def test_a_step_of_two_processes_against_one_at_equal_local_work(tmp_path: Path, capsys) -> None:
    found = {}
    for way, count in (("alone", 1), ("side-by-side", 2), ("ddp", 2), ("fsdp", 2)):
        run_program(__file__, count, way, tmp_path)
        each = [json.loads((tmp_path / f"{way}-{count}-{rank}").read_text()) for rank in range(count)]
        found[way] = {name: max(part[name] for part in each) for name in each[0]}
    one, shared, ddp = found["alone"]["step"], found["side-by-side"]["step"], found["ddp"]
    with capsys.disabled():
        print(f"\none process {one:.3f} s a step; two side by side {shared / one:.3f} of it: what the cores share")
        for way in ("ddp", "fsdp"):
            step = found[way]["step"]
            print(f"{way}: {step:.3f} s, {step / one:.3f} of one process, {step / shared:.3f} of two side by side")
        print(
            f"ddp: gradients alone take {ddp['sent']:.3f} s; {ddp['hidden']:.0%} of them are there when the backward "
            f"pass ends, the others, and the slower process, are waited for {ddp['waited']:.3f} s"
        )


if __name__ == "__main__":
    fork_together(int(sys.argv[1]), main, sys.argv[2], Path(sys.argv[3]))
