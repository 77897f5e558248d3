"""Number formats: by name, and what auto takes."""

import pytest
import torch

from grncli.runtime import devices
from grncli.runtime.errors import UsageError

CPU = torch.device("cpu")


@pytest.mark.parametrize(("computes", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_takes_bfloat16_where_the_device_computes_in_it(monkeypatch, computes, dtype):
    monkeypatch.setattr(devices, "_has_bfloat16", lambda device: computes)
    assert devices.pick_dtype("auto", CPU) == dtype


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_a_named_format_is_taken_on_any_processor(monkeypatch, name):
    monkeypatch.setattr(devices, "_has_bfloat16", lambda device: False)
    assert devices.dtype_name(devices.pick_dtype(name, CPU)) == name


def test_another_format_is_refused():
    with pytest.raises(UsageError, match="--dtype float16: expected auto, float32 or bfloat16"):
        devices.pick_dtype("float16", CPU)
