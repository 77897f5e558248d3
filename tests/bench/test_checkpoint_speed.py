"""What saving in shards costs the training that goes on meanwhile: pytest -m bench -s."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "training"))

from toy_processes import run_together

pytestmark = pytest.mark.bench

EVERY = 8  # steps from save to save


def test_a_save_in_shards_stalls_the_training_by_a_step_at_most(tmp_path):
    (seconds, _) = run_together(tmp_path, (2, "measured"))["measured"]
    step = float(np.median(seconds))
    more = (np.array(seconds) - step) / step
    first, *saves = more[EVERY - 1 :: EVERY]
    between = more[2 * EVERY - 1 : 3 * EVERY - 1].sum()
    print(
        f"\na step of two processes {step:.3f} s; beside it one that saves takes {max(saves):.2f} steps, the first, "
        f"which asks for the memory of the copy, {first:.2f}; all steps from a save to the next {between:.2f}"
    )
