"""What a run resumes with: the same recipe and data only; and when --overwrite starts anew."""

import json
import os
from dataclasses import replace

import pytest
import torch

from grncli.media.listing import list_sources
from grncli.runs.checkpoint import COMPLETE, list_checkpoints, write_checkpoint
from grncli.runs.rundir import locked_run, read_record
from grncli.runs.tokenizer_recipe import TokenizerRecipe, Training
from grncli.runtime.errors import CheckpointError
from grncli.runtime.processes import SINGLE_PROCESS
from grncli.training.run_setup import PresentRun, bits_record, media_record, open_run, touch_complete

A, B = bits_record(["a"], 10), bits_record(["b"], 10)


def recipe(steps=8, seed=0):
    return TokenizerRecipe(training=Training(steps=steps, seed=seed))


def save(run, step):
    write_checkpoint(run, step, {"ema": {"a": torch.zeros(1)}}, {"step": step}, {})


class Stopped(Exception):
    pass


def work(run, steps, asked=None, data=A, *, overwrite=False, said=None):
    """Train to ``steps`` of those asked for."""
    asked = asked or recipe()
    said = [] if said is None else said
    try:
        with open_run(run, asked, data, SINGLE_PROCESS, overwrite=overwrite, say=said.append):
            save(run, steps)
            if steps < asked.training.steps:
                raise Stopped
    except Stopped:
        pass


def steps_of(run, asked=None, data=A, *, overwrite=False):
    return PresentRun(run).steps_done(asked or recipe(), data, overwrite=overwrite)


def test_the_mark_comes_with_the_last_step(tmp_path):
    work(tmp_path / "run", 4)
    assert not (tmp_path / "run" / COMPLETE).exists()
    work(tmp_path / "run", 8)
    assert (tmp_path / "run" / COMPLETE).exists()


def test_the_mark_goes_while_a_run_is_extended(tmp_path):
    work(tmp_path, 8)
    work(tmp_path, 9, recipe(12))
    assert not (tmp_path / COMPLETE).exists()


def test_a_run_of_other_data_is_refused_by_what_differs(tmp_path):
    work(tmp_path, 4)
    with pytest.raises(CheckpointError) as caught:
        steps_of(tmp_path, data=B)
    told = str(caught.value)
    assert f"was trained on other data (10 samples, digest {A.digest[:8]}) than these 10 samples" in told
    assert "give the same data, another --out, or --overwrite" in told
    assert steps_of(tmp_path) == 4


def test_text_features_in_another_number_format_are_other_data(tmp_path):
    in_float32, in_bfloat16 = (bits_record(["a"], 10, dtype) for dtype in ("float32", "bfloat16"))
    work(tmp_path, 4, data=in_float32)
    with pytest.raises(CheckpointError, match="features computed in float32, and these are computed in bfloat16"):
        steps_of(tmp_path, data=in_bfloat16)
    assert steps_of(tmp_path, data=in_bfloat16, overwrite=True) is None
    assert steps_of(tmp_path, data=in_float32) == 4


def test_a_run_that_does_not_record_the_number_format_of_its_features_resumes(tmp_path):
    work(tmp_path, 4)
    assert steps_of(tmp_path, data=bits_record(["a"], 10, "bfloat16")) == 4


def test_a_finished_run_of_other_data_is_refused_too(tmp_path):
    work(tmp_path, 8)
    with pytest.raises(CheckpointError, match="other data"):
        steps_of(tmp_path, data=B)


def test_a_run_whose_record_is_lost_goes_on_and_says_so(tmp_path):
    work(tmp_path, 4)
    (tmp_path / "run.json").unlink()
    said = []
    work(tmp_path, 8, data=B, said=said)
    assert len(said) == 1
    assert "has no run.json" in said[0]
    assert read_record(tmp_path).data == B


# Data


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media" / "a"
    folder.mkdir(parents=True)
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(b"12345")
    return folder.parent


def digest(folder):
    return media_record(list_sources(str(folder)).sources, str(folder)).digest


def test_moved_media_are_the_same(media):
    before = digest(media)
    media.rename(media.with_name("moved"))
    assert digest(media.with_name("moved")) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "1.png").rename(folder / "3.png"),
        lambda folder: (folder / "1.png").write_bytes(b"123456"),
        lambda folder: (folder / "3.png").write_bytes(b""),
        lambda folder: (folder / "1.png").unlink(),
    ],
    ids=["renamed", "of another size", "more", "fewer"],
)
def test_changed_media_are_others(media, change):
    before = digest(media)
    change(media / "a")
    assert digest(media) != before


# --overwrite


def test_overwriting_a_run_begun_without_it_starts_anew(tmp_path):
    work(tmp_path, 4)
    assert steps_of(tmp_path, overwrite=True) is None
    work(tmp_path, 2, overwrite=True)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002"]


@pytest.mark.parametrize("there", [True, False], ids=["over a run", "over nothing"])
def test_the_same_command_with_overwrite_resumes_what_it_began(tmp_path, there):
    run = tmp_path / "run"
    if there:
        work(run, 6, recipe(seed=1))
    work(run, 2, overwrite=True)
    said = []
    assert steps_of(run, overwrite=True) == 2
    work(run, 4, overwrite=True, said=said)
    assert "resumes at step 2 what this command with --overwrite began" in said[0]
    work(run, 8, overwrite=True)
    assert [path.name for path in list_checkpoints(run)] == ["step-00000002", "step-00000004", "step-00000008"]


def test_the_same_command_with_overwrite_makes_a_finished_run_anew(tmp_path):
    work(tmp_path, 8, overwrite=True)
    assert steps_of(tmp_path, overwrite=True) is None


@pytest.mark.parametrize(("asked", "data"), [(recipe(seed=1), A), (recipe(9), A), (recipe(), B)])
def test_another_command_with_overwrite_starts_anew(tmp_path, asked, data):
    work(tmp_path, 2, overwrite=True)
    assert steps_of(tmp_path, asked, data, overwrite=True) is None


def test_a_run_that_was_resumed_without_overwrite_in_between_still_resumes(tmp_path):
    work(tmp_path, 2, overwrite=True)
    work(tmp_path, 4)
    assert steps_of(tmp_path, overwrite=True) == 4


def test_the_same_command_with_overwrite_resumes_what_an_earlier_version_began(tmp_path):
    work(tmp_path, 2, overwrite=True)
    own, record = tmp_path / "recipe.yaml", tmp_path / "run.json"
    text = own.read_text()
    before = {
        "gradient_accumulation": "accumulate",
        "activation_checkpointing": "recompute",
        "  type: causal_conv\n": "",
    }
    for new, old in before.items():
        assert new in text
        text = text.replace(new, old)
    own.write_text(text)
    record.write_text(json.dumps({**json.loads(record.read_text()), "overwrite": "0" * 64}))
    assert steps_of(tmp_path, overwrite=True) == 2
    assert steps_of(tmp_path, recipe(9), overwrite=True) is None
    assert steps_of(tmp_path, data=B, overwrite=True) is None


def test_overwriting_a_damaged_record_starts_anew(tmp_path):
    work(tmp_path, 2, overwrite=True)
    (tmp_path / "run.json").write_text("{")
    assert steps_of(tmp_path, overwrite=True) is None


# Nothing to do


def test_nothing_to_do_renews_the_date_of_the_mark(tmp_path):
    work(tmp_path, 8)
    os.utime(tmp_path / COMPLETE, (1, 1))
    touch_complete(tmp_path, recipe())
    assert os.stat(tmp_path / COMPLETE).st_mtime > 1


def test_a_mark_that_a_kill_prevented_is_made_up_for(tmp_path):
    work(tmp_path, 8)
    (tmp_path / COMPLETE).unlink()
    touch_complete(tmp_path, recipe())
    assert (tmp_path / COMPLETE).exists()


def test_a_run_that_wants_more_steps_is_not_marked(tmp_path):
    """Fewer steps are asked for than it has, and it has fewer than its own recipe asks for."""
    work(tmp_path, 6)
    touch_complete(tmp_path, recipe(4))
    assert not (tmp_path / COMPLETE).exists()


@pytest.mark.parametrize("marked", [True, False])
def test_where_nothing_can_be_written_a_finished_run_is_finished(tmp_path, monkeypatch, marked):
    work(tmp_path, 8)
    if not marked:
        (tmp_path / COMPLETE).unlink()

    real = os.open

    def read_only(path, flags, *more, **options):
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more, **options)

    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    if marked:
        monkeypatch.setattr(os, "utime", refuse)
    touch_complete(tmp_path, recipe())


def test_a_checkpoint_that_cannot_be_read_is_not_counted(tmp_path):
    work(tmp_path, 4)
    work(tmp_path, 8)
    (list_checkpoints(tmp_path)[-1] / "ema.safetensors").write_bytes(b"")
    assert steps_of(tmp_path) == 4


def test_a_run_in_training_cannot_be_prepared(tmp_path):
    work(tmp_path, 4)
    with locked_run(tmp_path), pytest.raises(Exception, match="is being trained by"):
        work(tmp_path, 8)


def test_steps_may_change_and_the_seed_not(tmp_path):
    work(tmp_path, 4)
    assert steps_of(tmp_path, recipe(100)) == 4
    with pytest.raises(CheckpointError, match=r"training\.seed=0 there, 1 asked"):
        steps_of(tmp_path, replace(recipe(), training=Training(steps=8, seed=1)))
