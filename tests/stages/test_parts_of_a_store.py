"""Many jobs write the parts of one store: what they leave out or make twice is named by the command it would hurt."""

import json
import shutil

import pytest

import grncli
from grncli import open_store
from grncli.media.writing import write_png
from grncli.runtime.errors import StoreMismatch
from grncli.store import verify_store
from grncli.tokenizing import tokenizing_stage

RECIPE = """\
kind: generator
network: {classes: 0, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 2, validation: 0}
training: {steps: 1}
"""


@pytest.fixture
def folder(tmp_path, draw_picture):
    (tmp_path / "media").mkdir()
    for i in range(6):
        write_png(tmp_path / "media" / f"{i}.png", draw_picture(i))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def make_part(folder, run_dir):
    def call(part, parts=3, **options):
        options = {"tokenizer": run_dir, "workers": 0, "batch": 2, **options}
        return grncli.tokenize(folder / "media", folder / "s.zarr", part=(part, parts), **options)

    return call


def refused(grn_inside, folder, *options):
    """What train-gen says of the store."""
    command = ("train-gen", folder / "recipe.yaml", folder / "s.zarr", "--out", folder / "run", "--dry-run")
    done = grn_inside(*command, *options)
    return done.returncode, " ".join(done.stderr.split())


def test_missing_parts_are_named_before_training_and_by_info(folder, make_part, grn_inside):
    make_part(0)
    code, said = refused(grn_inside, folder)
    assert code == 1, said
    assert "is not complete (2 samples so far): part-00001 and part-00002 are missing; finish it" in said
    shown = " ".join(grn_inside("info", folder / "s.zarr").stdout.split())
    assert "part 1 missing" in shown
    make_part(1)
    make_part(2)
    assert refused(grn_inside, folder)[0] == 0


def test_a_part_copied_over_another_is_named(folder, make_part, grn_inside):
    for part in range(3):
        make_part(part)
    store = folder / "s.zarr"
    shutil.rmtree(store / "part-00002")
    shutil.copytree(store / "part-00001", store / "part-00002")
    code, said = refused(grn_inside, folder)
    assert code == 1
    assert "part-00001 and part-00002 hold the same sources" in said
    code, said = refused(grn_inside, folder, "--allow-incomplete")
    assert code == 0
    assert "hold the same sources" in said
    assert verify_store(store) == []  # each byte is as it was written
    done = grn_inside("info", store, "--verify", "--json")
    assert done.returncode == 1
    problems = " ".join(json.loads(done.stdout)["problems"])
    assert "part-00001 and part-00002 hold the same sources" in problems
    assert "part-00001 has the sample '1.png' and part-00002 has it too" in problems


def test_parts_of_different_lists_do_not_make_a_complete_store(folder, make_part, draw_picture, monkeypatch):
    """Two jobs list SRC at one time, and a file comes in between."""
    find_work = tokenizing_stage.find_work

    def find_and_let_another_job_run(*arguments):
        work = find_work(*arguments)
        monkeypatch.setattr(tokenizing_stage, "find_work", find_work)
        write_png(folder / "media" / "00.png", draw_picture(9))
        make_part(0, 2)
        (folder / "media" / "00.png").unlink()
        return work

    monkeypatch.setattr(tokenizing_stage, "find_work", find_and_let_another_job_run)
    with pytest.raises(StoreMismatch, match=r"part-00000 was made of another list .* --part 0/2 --overwrite"):
        make_part(1, 2)
    assert not open_store(folder / "s.zarr").complete
    make_part(0, 2, overwrite=True)
    store = open_store(folder / "s.zarr")
    assert store.complete
    assert sorted(store.sources()) == sorted(str(folder / "media" / f"{i}.png") for i in range(6))


def test_many_parts_are_shown_in_a_few_lines(folder, make_part, grn_inside):
    make_part(3, parts=40)
    make_part(5, parts=40)
    shown = grn_inside("info", folder / "s.zarr").stdout
    assert "2 of 40 complete, with 2 sources, 0 failed" in " ".join(shown.split())
    assert "and 22 more are not complete" in shown
    assert len(shown.splitlines()) < 40
