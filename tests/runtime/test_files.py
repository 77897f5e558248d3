import errno

import pytest

from grncli.runtime.files import naming, whole_file


def full():
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_the_system_names_the_file_that_was_to_be_written(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, whole_file(tmp_path / "a.png"):
        full()
    assert caught.value.filename == str(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_broken_pipe_names_no_file(tmp_path):
    with pytest.raises(BrokenPipeError) as caught, naming(tmp_path / "a"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert caught.value.filename is None
