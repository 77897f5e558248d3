"""Which published weights are in the cache."""

import hashlib

import pytest

from grncli.machine import cached_weights as module
from grncli.machine.cached_weights import cached_weights
from grncli.runs.weight_files import WeightFile


@pytest.fixture
def published(monkeypatch):
    whole = hashlib.sha256(b"whole").hexdigest()
    files = (WeightFile("https://host/a.pth", whole), WeightFile("https://host/b.pt", whole))
    pair = (WeightFile("https://host/trunk.pth", whole[:8], twin=True), WeightFile("https://host/heads.pth", whole))
    monkeypatch.setattr(module, "PUBLISHED", {"inception": files})
    monkeypatch.setattr(module.lpips_weights, "FILES", {"alex": pair})


def states(cache, **options):
    return {one.network: one for one in cached_weights(cache, **options)}


def test_what_is_missing_is_named(published, tmp_path):
    found = states(tmp_path)
    assert (found["inception"].lacking, found["inception"].size) == (("a.pth",), 0)
    assert found["lpips alex"].lacking == ("trunk.pth", "heads.pth")


def test_any_of_several_files_does(published, tmp_path):
    (tmp_path / "b.pt").write_bytes(b"whole")
    found = states(tmp_path)["inception"]
    assert (found.lacking, found.files, found.size) == ((), (str(tmp_path / "b.pt"),), 5)


def test_damaged_files_are_found_where_they_are_read(published, tmp_path):
    (tmp_path / "lpips").mkdir()
    (tmp_path / "lpips/trunk.safetensors").write_bytes(b"another format")
    (tmp_path / "lpips/heads.pth").write_bytes(b"damaged")
    (tmp_path / "a.pth").write_bytes(b"whole")
    assert all(not one.damaged for one in states(tmp_path).values())
    found = states(tmp_path, verify=True)
    assert found["lpips alex"].damaged == (str(tmp_path / "lpips/heads.pth"),)
    assert found["inception"].damaged == ()
