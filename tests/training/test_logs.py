"""TensorBoard is optional, and says so."""

import sys

import pytest

from grncli.errors import UsageError
from grncli.training.logs import TensorBoardLog


def test_tensorboard_that_is_not_installed_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"pip install 'grncli\[tensorboard\]'"):
        TensorBoardLog(tmp_path, 0)


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboard")
    TensorBoardLog(tmp_path, 0).write(3, {"loss": 1.5})
    assert list(tmp_path.glob("events*"))
