"""The package as it is installed: its version."""

import importlib.metadata

import pytest

import grncli


def test_the_version_is_that_of_the_installed_package():
    assert grncli.__version__ == importlib.metadata.version("grncli")


def test_a_checkout_that_was_never_installed_has_a_version(monkeypatch: pytest.MonkeyPatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert grncli.__version__ == "0+unknown"
