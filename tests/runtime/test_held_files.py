"""Files that must stay what they were while they are read."""

import os
import shutil

import pytest

from grncli.runtime.errors import CheckpointError
from grncli.runtime.held_files import HeldFile
from grncli.runtime.tensor_files import sha256_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"weights")
    return path


def test_another_file_under_its_name_is_noticed(file):
    with HeldFile(file) as held:
        held.confirm()
        shutil.copy(file, file.with_name("copy"))
        os.replace(file.with_name("copy"), file)
        with pytest.raises(CheckpointError, match="was replaced while it was read"):
            held.confirm()


def test_what_is_written_to_it_is_noticed(file):
    with HeldFile(file) as held:
        assert held.sha256() == sha256_of(file)
        with file.open("r+b") as stream:
            stream.write(b"x")
        os.utime(file, ns=(1, 1))
        with pytest.raises(CheckpointError, match="was written to while it was read"):
            held.sha256()
