"""``grn export`` as a real process: what it makes is a run to every other command."""

import json
import os

SAMPLES = ["--classes", "ant", "--per-class", "2", "--steps", "2"]


def test_stages_take_exported_runs_as_the_runs_themselves(grn, grn_inside, tokenizer, generator, media_dir, tmp_path):
    made = grn("export", tokenizer, tmp_path / "tok", "--json")
    assert made.returncode == 0, made.stderr
    made = json.loads(made.stdout)
    assert (made["file"], made["present"]) == (str(tmp_path / "tok" / "ema.safetensors"), False)
    commands = [
        ("export", generator, tmp_path / "gen"),
        ("tokenize", media_dir / "a", tmp_path / "bits.zarr", "--tokenizer", tmp_path / "tok"),
        ("decode", tmp_path / "bits.zarr", tmp_path / "pictures", "--tokenizer", tokenizer),
        ("sample", tmp_path / "gen", tmp_path / "samples", "--tokenizer", tmp_path / "tok", *SAMPLES),
    ]
    for command in commands:
        done = grn_inside(*command)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 6
    assert len(list((tmp_path / "samples").rglob("*.png"))) == 2
    facts = json.loads(grn_inside("info", tmp_path / "tok", "--verify", "--json").stdout)
    assert (facts["sha256"], facts["problems"]) == (made["sha256"], [])


def test_a_wrong_export_ends_with_one_sentence(grn_inside, tokenizer, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    done = grn_inside("export", tokenizer, tmp_path / "photos", "--overwrite")
    assert done.returncode == 2
    assert done.stderr == f"grn: {tmp_path}/photos holds files that grn export did not write; choose another DIR\n"
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def test_repeating_an_export_says_that_it_is_there(grn_inside, tokenizer, tmp_path):
    grn_inside("export", tokenizer, tmp_path / "tok")
    done = grn_inside("export", tokenizer, tmp_path / "tok")
    assert "was exported before, nothing to do" in done.stderr
