"""What tests of training share."""

import sys
from pathlib import Path

import pytest

# Test modules are imported by path; their shared toy_training.py needs a folder to be looked for in.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of eight steps that nothing interrupted."""
    from toy_training import launch  # only here: found by the line above

    run = tmp_path_factory.mktemp("whole")
    launch(run)
    return run
