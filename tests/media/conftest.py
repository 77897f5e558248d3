import os
import subprocess
import sys

import pytest
from PIL import Image

from grncli.media.clip_decoding import ffmpeg


@pytest.fixture
def make_clip(tmp_path):
    """Writes a test-pattern clip with the bundled ffmpeg; further arguments go before the output name."""

    def make(name, *options, frames=24, fps=12, size="64x48", inputs=()):
        path = tmp_path / name
        command = [ffmpeg(), "-v", "error", "-y", "-f", "lavfi"]
        command += ["-i", f"testsrc2=s={size}:r={fps}:d={frames / fps}", *inputs, *options, str(path)]
        subprocess.run(command, check=True, timeout=60)
        return path

    return make


@pytest.fixture
def make_image(tmp_path):
    def make(name, colour=(10, 20, 30), size=(32, 32)):
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", size, colour).save(file, "PNG")
        return os.fsdecode(path)

    return make


@pytest.fixture
def descendants():
    """Process ids below this process, as a function; those of earlier tests, such as Python's own helpers, are none."""
    if sys.platform != "linux":
        pytest.skip("needs /proc")

    def find(parent=None):
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/stat") as file:
                        parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
                except OSError:
                    continue
        found, todo = [], [parent or os.getpid()]
        while todo:
            above = todo.pop()
            below = [pid for pid, of in parents.items() if of == above]
            found += below
            todo += below
        return [process for process in found if process not in earlier]

    earlier = []
    earlier = find()
    return find
