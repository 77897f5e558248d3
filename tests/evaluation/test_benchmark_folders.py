"""Samples of prompts in the folders that GenEval and VBench read."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from grncli.evaluation import benchmark_folders as module
from grncli.evaluation.benchmark_folders import ExportSummary, export, manifest_path
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample
from grncli.store import open_store
from grncli.text.prompt_features import PromptFeatures

TEXTS = ("a photo of a bee", "an ant", "a photo of a bee")
GENEVAL = [{"tag": "single_object", "include": [{"class": "x", "count": 1}], "prompt": text} for text in TEXTS]
TOO_FEW = ("4 samples a prompt expected by GenEval, found 2", "553 prompts expected by GenEval, found 3")


class StopAt(Stop):
    """A request to stop from the n-th question on."""

    def __init__(self, n):
        super().__init__()
        self._left = n

    @property
    def reason(self):
        self._left -= 1
        return "test" if self._left < 0 else None


class Letters(PromptFeatures):
    """Of each letter its number."""

    def __init__(self):
        self.encoder, self.width = {"name": "letters", "sha256": "5" * 64}, 3

    def of(self, prompts):
        return [torch.tensor([[ord(letter) % 7 - 3.0] * 3 for letter in (*prompt, "_")]) for prompt in prompts]


@pytest.fixture(scope="module")
def made(make_run, make_generator_run, tmp_path_factory):
    """A folder with runs, prompts, and samples of them: pictures, clips, and bits of both."""
    folder = tmp_path_factory.mktemp("made")
    tokenizer = make_run(folder / "tok", 2)
    (folder / "geneval.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in GENEVAL))
    settings = SampleOptions(steps=2, guidance=1.0, per_class=2, tokenizer=str(tokenizer))
    settings = replace(settings, prompts=folder / "geneval.jsonl")
    make_generator_run(folder / "gen", tokenizer)
    make_generator_run(folder / "clip-gen", tokenizer, grids={"2x4x4": 1}, fps=8.0)
    for name in ("pictures", "bits.zarr", "clips", "clips.zarr"):
        sample(folder / ("clip-gen" if "clip" in name else "gen"), folder / name, settings)
    sample(folder / "gen", folder / "classes.zarr", replace(settings, prompts=None))
    return folder


def geneval(made, folder, samples="pictures", **options):
    options = {"prompts": made / "geneval.jsonl", **options}
    return export(made / samples, folder, "geneval", **options)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_as_geneval(folder):
    """What ``evaluation/evaluate_images.py`` finds: metadata and sizes of the pictures of each numbered folder."""
    found = {}
    for name in sorted(os.listdir(folder)):
        if (folder / name).is_dir() and name.isdigit():
            with (folder / name / "metadata.jsonl").open() as file:
                metadata = json.load(file)
            pictures = sorted(os.listdir(folder / name / "samples"))
            found[name] = (metadata, [Image.open(folder / name / "samples" / file).size for file in pictures])
    return found


def read_as_vbench(folder, texts):
    """What ``VBench.build_full_info_json`` finds for each prompt: the suffix is that of any file in the folder."""
    names = os.listdir(folder)
    (suffix,) = {os.path.splitext(name)[1] for name in names}
    return {text: [i for i in range(5) if f"{text}-{i}{suffix}" in names] for text in texts}


def test_pictures_and_their_list_tell_the_prompt(made):
    told = json.loads(Image.open(made / "pictures" / "00001" / "00000.png").text["Comment"])
    listed = json.loads((made / "pictures" / "samples.json").read_text())["samples"][1]
    assert listed["file"] == "00001/00000.png"
    for each in (told, listed):
        assert (each["prompt"], each["prompt_number"], each["class"]) == ("an ant", 1, "ant")


def test_geneval_finds_each_prompt_with_its_own_line_and_its_pictures(made, tmp_path):
    assert geneval(made, tmp_path / "g") == ExportSummary(prompts=3, files=6, present=0, warnings=TOO_FEW)
    assert read_as_geneval(tmp_path / "g") == {f"{p:05d}": (GENEVAL[p], [(16, 16)] * 2) for p in range(3)}
    source = made / "pictures" / "00001" / "00001.png"
    assert (tmp_path / "g" / "00001" / "samples" / "0001.png").read_bytes() == source.read_bytes()


@pytest.fixture(scope="module")
def of_texts(made, make_text_run):
    """Samples of a generator of texts, whose prompts were rewritten: pictures and clips, and bits of both."""
    tokenizer = made / "tok"
    make_text_run(made / "text-gen", tokenizer, width=3)
    make_text_run(made / "text-clip-gen", tokenizer, width=3, grids={"2x4x4": 1})
    options = SampleOptions(steps=2, per_class=2, tokenizer=str(tokenizer), prompts=made / "geneval.jsonl")
    options = replace(options, rewrite="sed -u 's/ a/ many/'")
    for name in ("text-pictures", "text-bits.zarr", "text-clips", "text-clips.zarr"):
        sample(made / ("text-clip-gen" if "clip" in name else "text-gen"), made / name, options, features=Letters())
    return made


def test_samples_of_texts_go_by_the_prompts_of_the_list_not_by_what_the_network_read(of_texts, tmp_path):
    record = next(open_store(of_texts / "text-bits.zarr").records())
    forms = ("a photo of a bee", "a photo of many bee", "<T2I>a photo of many bee")
    assert tuple(record[form] for form in ("prompt", "rewritten", "final_prompt")) == forms
    for samples, tokenizer in (("text-pictures", None), ("text-bits.zarr", str(of_texts / "tok"))):
        folder = tmp_path / samples
        assert geneval(of_texts, folder, samples, tokenizer=tokenizer).files == 6
        assert read_as_geneval(folder) == {f"{p:05d}": (GENEVAL[p], [(16, 16)] * 2) for p in range(3)}
    source = of_texts / "text-pictures" / "00001" / "00001.png"
    assert (tmp_path / "text-pictures" / "00001" / "samples" / "0001.png").read_bytes() == source.read_bytes()
    for samples, tokenizer in (("text-clips", None), ("text-clips.zarr", str(of_texts / "tok"))):
        export(of_texts / samples, tmp_path / samples, "vbench", tokenizer=tokenizer)
        assert read_as_vbench(tmp_path / samples, TEXTS[:2]) == {TEXTS[0]: [0, 1, 2, 3], TEXTS[1]: [0, 1]}


def test_pictures_are_linked_and_never_symbolically(made, tmp_path):
    shutil.copytree(made / "pictures", tmp_path / "p")
    moved = (tmp_path / "p" / "00000" / "00000.png").rename(tmp_path / "elsewhere.png")
    (tmp_path / "p" / "00000" / "00000.png").symlink_to(moved)
    export(tmp_path / "p", tmp_path / "g", "geneval", prompts=made / "geneval.jsonl")
    for number in range(2):
        file = tmp_path / "g" / "00000" / "samples" / f"{number:04d}.png"
        assert not file.is_symlink()
        assert file.stat().st_nlink == 2


def test_pictures_are_copied_where_they_cannot_be_linked(made, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert geneval(made, tmp_path / "g").files == 6
    file = tmp_path / "g" / "00000" / "samples" / "0000.png"
    assert file.stat().st_nlink == 1
    assert file.read_bytes() == (made / "pictures" / "00000" / "00000.png").read_bytes()


def test_bits_are_decoded_to_the_same_pictures(made, tmp_path):
    geneval(made, tmp_path / "linked")
    summary = geneval(made, tmp_path / "decoded", "bits.zarr", tokenizer=str(made / "tok"))
    assert summary.files == 6
    assert files(tmp_path / "decoded") == files(tmp_path / "linked")
    for name in files(tmp_path / "linked"):
        if name.endswith(".png"):
            ours, theirs = (np.asarray(Image.open(tmp_path / way / name)) for way in ("decoded", "linked"))
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("samples", "tokenizer"), [("clips", None), ("clips.zarr", "tok")])
def test_vbench_finds_the_clips_of_each_prompt_and_no_other_file(made, tmp_path, samples, tokenizer):
    tokenizer = tokenizer and str(made / tokenizer)
    summary = export(made / samples, tmp_path / "v", "vbench", tokenizer=tokenizer)
    assert summary == ExportSummary(3, 6, 0, ("5 samples a prompt expected by VBench, found 2",))
    # A prompt that is listed twice has one name for the clips of both.
    assert read_as_vbench(tmp_path / "v", TEXTS[:2]) == {TEXTS[0]: [0, 1, 2, 3], TEXTS[1]: [0, 1]}
    assert (tmp_path / "v.export.json").is_file()


@pytest.mark.parametrize("layout", ["geneval", "vbench"])
def test_exporting_again_does_nothing_and_says_so(made, tmp_path, layout):
    samples = "pictures" if layout == "geneval" else "clips"
    for wanted in ((6, 0), (0, 6)):
        summary = export(made / samples, tmp_path / "d", layout, prompts=made / "geneval.jsonl")
        assert (summary.files, summary.present) == wanted


def test_an_interrupted_export_is_gone_on_with(made, tmp_path):
    with pytest.raises(Stopped, match="2 of 6"):
        geneval(made, tmp_path / "g", monitor=Monitor(StopAt(2)))
    assert (geneval(made, tmp_path / "g").files, len(files(tmp_path / "g"))) == (4, 6 + 3 + 1)


def test_a_failed_export_leaves_whole_files_only(made, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "link", fail)
    monkeypatch.setattr(module.shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        geneval(made, tmp_path / "g")
    assert files(tmp_path / "g") == [*(f"{p:05d}/metadata.jsonl" for p in range(3)), "export.json"]


def test_a_folder_of_something_else_is_left_alone(made, tmp_path):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files"):
        geneval(made, tmp_path / "g")
    with pytest.raises(UsageError, match="is a file"):
        geneval(made, tmp_path / "g" / "notes.txt")
    assert files(tmp_path) == ["g/notes.txt"]


def test_a_folder_of_other_samples_or_metadata_is_refused(made, tmp_path):
    geneval(made, tmp_path / "g")
    (tmp_path / "other.jsonl").write_text("".join(json.dumps({**line, "tag": "two"}) + "\n" for line in GENEVAL))
    with pytest.raises(UsageError, match="made by grn eval export with other settings or data \\(metadata="):
        geneval(made, tmp_path / "g", prompts=tmp_path / "other.jsonl")
    manifest_path(tmp_path / "g", "geneval").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        geneval(made, tmp_path / "g")


def test_an_emptied_folder_may_take_another_export(made, tmp_path):
    export(made / "clips", tmp_path / "v", "vbench")
    shutil.rmtree(tmp_path / "v")
    assert geneval(made, tmp_path / "v").files == 6


def test_geneval_needs_the_prompts_that_the_samples_were_made_with(made, tmp_path):
    with pytest.raises(UsageError, match="needs --prompts"):
        geneval(made, tmp_path / "g", prompts=None)
    for lines, words in (
        (GENEVAL[:2], "has 2 prompts, but prompt 2"),
        ([*GENEVAL[:1], *GENEVAL], r":2: 'a photo of a bee', but prompt 1 of the samples is 'an ant'"),
        ([{"prompt": text} for text in TEXTS], ":1: has no tag"),
    ):
        (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(UsageError, match=words):
            geneval(made, tmp_path / "g", prompts=tmp_path / "p.jsonl")
    (tmp_path / "p.txt").write_text("\n".join(TEXTS))
    with pytest.raises(UsageError, match=r"p\.txt:1: has no tag and no prompt"):
        geneval(made, tmp_path / "g", prompts=tmp_path / "p.txt")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("samples", "layout", "words"),
    [
        ("pictures", "vbench", "has single pictures, and VBench is for clips"),
        ("clips", "geneval", "has clips, and GenEval is for single pictures"),
    ],
)
def test_samples_of_the_other_kind_are_refused(made, tmp_path, samples, layout, words):
    with pytest.raises(UsageError, match=words):
        export(made / samples, tmp_path / "d", layout, prompts=made / "geneval.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_samples_without_prompts_are_refused(made, tmp_path):
    with pytest.raises(UsageError, match=r"classes\.zarr: sample ant/000000 has no prompt"):
        geneval(made, tmp_path / "g", "classes.zarr", tokenizer=str(made / "tok"))


def test_a_store_needs_a_tokenizer_and_pictures_take_none(made, make_run, tmp_path):
    with pytest.raises(UsageError, match="expected --tokenizer RUN"):
        geneval(made, tmp_path / "g", "bits.zarr")
    with pytest.raises(UsageError, match="need no --tokenizer"):
        geneval(made, tmp_path / "g", tokenizer=str(made / "tok"))
    with pytest.raises(StoreMismatch, match="was made by tokenizer"):
        geneval(made, tmp_path / "g", "bits.zarr", tokenizer=str(make_run(tmp_path / "other", 2, 1)))
    with pytest.raises(StoreError, match="does not exist"):
        geneval(made, tmp_path / "g", "missing")
    assert not (tmp_path / "g").exists()


def test_unfinished_samples_are_refused(made, tmp_path):
    settings = SampleOptions(steps=2, guidance=1.0, per_class=2, prompts=made / "geneval.jsonl", parts=2)
    sample(made / "gen", tmp_path / "s.zarr", settings)
    with pytest.raises(StoreError, match="is not complete"):
        export(tmp_path / "s.zarr", tmp_path / "g", "geneval", tokenizer=str(made / "tok"))


def test_a_picture_that_is_missing_is_named(made, tmp_path):
    shutil.copytree(made / "pictures", tmp_path / "p")
    (tmp_path / "p" / "00002" / "00001.png").unlink()
    with pytest.raises(UsageError, match=r"00002/00001\.png is missing"):
        export(tmp_path / "p", tmp_path / "g", "geneval", prompts=made / "geneval.jsonl")


@pytest.mark.parametrize("text", ["a bee and/or nothing", "a bee " + "x" * 250])
def test_a_prompt_that_can_be_no_file_name_is_refused(made, tmp_path, text):
    (tmp_path / "p.txt").write_text(text)
    settings = SampleOptions(steps=2, guidance=1.0, per_class=1, prompts=tmp_path / "p.txt")
    sample(made / "clip-gen", tmp_path / "s.zarr", settings)
    with pytest.raises(UsageError, match=r"the prompt 'a bee .* cannot be the name of a file"):
        export(tmp_path / "s.zarr", tmp_path / "v", "vbench", tokenizer=str(made / "tok"))
    assert not (tmp_path / "v").exists()
