"""Groups of options: declared once, and one value in the commands that take them."""

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from grncli.cli.options import Json, NetworkGroup, PictureGroup, grouped
from grncli.runtime.errors import UsageError

called = []


@grouped
def measure(
    src: Annotated[str, typer.Argument()],
    *,
    networks: NetworkGroup,
    pictures: PictureGroup,
    json: Json = False,
) -> None:
    """Measure something."""
    called.append((src, networks, pictures, json))


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(measure)
    called.clear()
    return lambda *arguments: CliRunner().invoke(app, list(map(str, arguments)))


def test_a_group_is_given_option_by_option(run):
    assert run("a", "--size", 64, "--workers", 0, "--download", "--json").exit_code == 0
    pictures = PictureGroup(size="64", workers=0)
    assert called == [("a", NetworkGroup(download=True), pictures, True)]


def test_what_is_not_given_has_the_default_of_the_group(run):
    assert run("a").exit_code == 0
    assert called == [("a", NetworkGroup(), PictureGroup(), False)]


def test_a_group_is_checked_and_described_as_its_options_are(run):
    assert run("a", "--limit", 0).exit_code == 2
    assert "--features" in run("--help").output
    assert "networks" not in run("--help").output
    assert called == []


def test_a_group_is_what_the_stages_take():
    reading = PictureGroup(frames=5, sample=3).reading("cpu", "run")
    assert (reading.frames, reading.sample, reading.device, reading.tokenizer) == (5, 3, "cpu", "run")
    assert reading.workers >= 1


def test_options_of_a_group_that_contradict_each_other_are_refused():
    with pytest.raises(UsageError, match="--limit 1 with --sample 2"):
        PictureGroup(limit=1, sample=2).reading("cpu", None)


def test_weights_are_looked_for_in_the_folder_of_the_user_unless_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert NetworkGroup().settings().cache == tmp_path / "grn"
    assert NetworkGroup(cache=tmp_path / "other").settings().cache == tmp_path / "other"
