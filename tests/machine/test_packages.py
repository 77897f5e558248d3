"""Packages that are missing or too old."""

import pytest

from grncli.machine import packages
from grncli.machine.packages import PackageState, package_problems, package_states


@pytest.fixture
def declared(monkeypatch):
    texts = ["numpy<3,>=1", 'matplotlib>=3; extra == "plot"', 'ruff; extra == "dev"', 'old; python_version < "3"']
    installed = {"numpy": "2.1", "matplotlib": None}
    monkeypatch.setattr(packages, "requires", lambda name: texts)
    monkeypatch.setattr(packages, "_installed", installed.__getitem__)
    return installed


def test_packages_are_known_by_extra_without_those_of_developers_and_other_systems(declared):
    assert package_states() == [
        PackageState("numpy", "<3,>=1", "2.1"),
        PackageState("matplotlib", ">=3", None, "plot"),
    ]


def test_what_nothing_needs_may_be_missing(declared):
    assert package_problems(package_states()) == []


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("numpy", None, "numpy is not installed, expected numpy<3,>=1: pip install 'numpy<3,>=1'"),
        ("numpy", "3.0", "numpy 3.0, expected"),
        ("matplotlib", "2.9", "matplotlib 2.9, expected matplotlib>=3"),
    ],
)
def test_a_version_that_does_not_do_is_a_problem(declared, name, version, words):
    declared[name] = version
    (problem,) = package_problems(package_states())
    assert problem.startswith(words)


def test_the_packages_of_this_test_do():
    assert {"torch", "zarr"} <= {one.name for one in package_states()}
    assert package_problems(package_states()) == []
