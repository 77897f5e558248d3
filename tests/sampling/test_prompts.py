"""Prompts: which files list them, which class each names, and what samples of them are called."""

import json
from dataclasses import replace

import pytest

from grncli.runtime.errors import StoreMismatch, UsageError
from grncli.sampling.plan import make_plan
from grncli.sampling.prompted_classes import classes_of
from grncli.sampling.settings import SampleOptions
from grncli.sampling.stage import sample
from grncli.store import open_store
from grncli.text import prompts as module
from grncli.text.prompts import Prompt, prompts_digest, read_prompts

LABELS = ("dog", "hot dog", "Cat", "C++", "crane", "crane")
GENEVAL = {"tag": "single_object", "include": [{"class": "bee", "count": 1}], "prompt": "a photo of a bee"}
SETTINGS = SampleOptions(steps=3, guidance=1.0, per_class=2)


@pytest.fixture(scope="module")
def make_trained(make_generator_run, make_run, tmp_path_factory):
    def make(**options):
        """A run of a generator, and beside it that of its tokenizer."""
        folder = tmp_path_factory.mktemp("runs")
        return make_generator_run(folder / "gen", make_run(folder / "tok", 2), **options)

    return make


@pytest.fixture(scope="module")
def trained(make_trained):
    return make_trained()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def classes(*texts):
    return [LABELS[number] for number in classes_of([Prompt(text, {}, "p.txt:1") for text in texts], LABELS)]


def samples(path):
    """Bits and record of each sample, by key."""
    store = open_store(path)
    return {store.record(i)["key"]: (store[i].bits.tobytes(), store.record(i)) for i in range(len(store))}


def test_geneval_has_a_json_object_a_line(tmp_path):
    other = {**GENEVAL, "prompt": "a line\u2028separator"}
    path = write(tmp_path / "m.jsonl", f"{json.dumps(GENEVAL)}\n\n{json.dumps(other, ensure_ascii=False)}\r\n")
    assert read_prompts(path) == [Prompt("a photo of a bee", GENEVAL), Prompt(other["prompt"], other)]
    assert [prompt.place for prompt in read_prompts(path)] == [f"{path}:1", f"{path}:3"]


def test_vbench_has_a_json_array(tmp_path):
    entry = {"prompt_en": "a bee", "dimension": ["color"]}
    assert read_prompts(write(tmp_path / "full.json", json.dumps([entry], indent=4))) == [Prompt("a bee", entry)]


def test_plain_text_has_a_prompt_a_line(tmp_path):
    path = write(tmp_path / "p.txt", b"\xef\xbb\xbf a bee \r\n\n  \nan ant")
    assert read_prompts(path) == [Prompt("a bee", {}), Prompt("an ant", {})]
    assert read_prompts(path)[1].place == f"{path}:4"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "has no prompt"),
        (" \n\n", "has no prompt"),
        ("[]", "has no prompt"),
        (b"a bee\nan \xff ant\n", r":2: is not UTF-8"),
        ('{"prompt": "a bee"}\n{"prompt": \n', r":2: is not valid JSON"),
        ('{"prompt": "a bee"}\n[1]\n', r":2: has no prompt, expected a JSON object"),
        ('{"prompt": "a bee"}\n{"prompt": " "}\n', r":2: has no prompt"),
        ('{"tag": "bee"}\n', r":1: has no prompt"),
        ('{"prompt": 3}\n', r":1: has no prompt"),
        (r'{"prompt": "\ud800"}', r":1: the prompt is not valid Unicode"),
        ('[{"prompt_en": "a bee"}, "an ant"]', "entry 2: has no prompt"),
        ('[{"prompt_en": "a bee"},', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_a_file_that_is_no_list_of_prompts_is_refused_and_the_line_named(tmp_path, content, words):
    with pytest.raises(UsageError, match=rf"prompts.*{words}"):
        read_prompts(write(tmp_path / "prompts", content))


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 3)
    assert read_prompts(write(tmp_path / "p", "ant")) == [Prompt("ant", {})]
    with pytest.raises(UsageError, match="larger than"):
        read_prompts(write(tmp_path / "p", "ants"))
    with pytest.raises(UsageError, match="No such file"):
        read_prompts(tmp_path / "missing")


def test_a_prompt_names_a_class_in_whole_words_of_any_case():
    assert classes("dog", "a photo of a Dog.", "the CAT-like", "in C++, of course") == ["dog", "dog", "Cat", "C++"]


def test_the_longest_name_counts():
    assert classes("a hot dog on a plate") == ["hot dog"]


def test_a_name_of_two_classes_is_one_name():
    assert classes("a crane") == ["crane"]


@pytest.mark.parametrize("text", ["a photo", "dogs", "a hot dog and a dog", "a cat and a dog"])
def test_a_prompt_that_names_no_class_or_several_is_refused(text):
    with pytest.raises(UsageError, match=rf"p\.txt:1: the prompt '{text}' names .* class.*dog, hot dog, Cat"):
        classes("dog", text)


def test_the_digest_tells_texts_and_their_order_apart():
    a, b, both = Prompt("a", {}), Prompt("b", {}), Prompt("ab", {})
    assert prompts_digest([a, b]) == prompts_digest([Prompt("a", {"tag": 1}), b])
    assert len({prompts_digest(each) for each in ([a, b], [b, a], [both])}) == 3


def test_samples_are_named_by_prompt_and_know_it(trained, tmp_path):
    path = write(tmp_path / "p.txt", "a bee\nan ant\nbee\n")
    sample(trained, tmp_path / "s.zarr", replace(SETTINGS, prompts=path))
    made = samples(tmp_path / "s.zarr")
    assert sorted(made) == [f"{p:05d}/{n:05d}" for p in range(3) for n in range(2)]
    assert made["00001/00001"][1] | {"row": 4} == {
        "grid": "1x4x4",
        "row": 4,
        "key": "00001/00001",
        "source": "sample 4",
        "class": "ant",
        "prompt": "an ant",
        "prompt_number": 1,
    }
    assert len({bits for bits, _ in made.values()}) == 6


def test_more_samples_a_prompt_go_on_from_those_that_are_there(trained, tmp_path):
    path = write(tmp_path / "p.txt", "a bee\nan ant\n")
    settings = replace(SETTINGS, prompts=path)
    sample(trained, tmp_path / "grown.zarr", replace(settings, per_class=1))
    assert sample(trained, tmp_path / "grown.zarr", settings).made == 2
    sample(trained, tmp_path / "whole.zarr", settings)
    assert samples(tmp_path / "grown.zarr") == samples(tmp_path / "whole.zarr")


def test_parts_make_the_same_samples_of_prompts(trained, tmp_path):
    settings = replace(SETTINGS, prompts=write(tmp_path / "p.txt", "a bee\nan ant\nbee\n"))
    for part in (1, 0):
        sample(trained, tmp_path / "parts.zarr", replace(settings, part=part, parts=2))
    sample(trained, tmp_path / "whole.zarr", settings)
    parts, whole = samples(tmp_path / "parts.zarr"), samples(tmp_path / "whole.zarr")
    assert {key: bits for key, (bits, _) in parts.items()} == {key: bits for key, (bits, _) in whole.items()}


def test_other_prompts_are_other_samples(trained, tmp_path):
    settings = replace(SETTINGS, prompts=write(tmp_path / "p.txt", "a bee\n"))
    sample(trained, tmp_path / "s.zarr", settings)
    for other in (replace(settings, prompts=write(tmp_path / "q.txt", "a fat bee\n")), replace(settings, prompts=None)):
        with pytest.raises(StoreMismatch, match="prompts="):
            sample(trained, tmp_path / "s.zarr", other)


def test_samples_without_prompts_are_told_as_they_were_before_there_were_prompts(trained, tmp_path):
    # Fits of the complexity-aware schedule, which are found by these settings, stay valid too.
    told = make_plan(trained, tmp_path / "s.zarr", SETTINGS).fingerprint.preprocessing
    assert "prompts" not in told
    assert told["classes"] == "all"


@pytest.mark.parametrize(("changes", "words"), [({"classes": "bee"}, "--classes bee"), ({"init": "x"}, "--init x")])
def test_prompts_exclude_other_choices_of_what_to_sample(trained, tmp_path, changes, words):
    settings = replace(SETTINGS, prompts=write(tmp_path / "p.txt", "a bee\n"), **changes)
    with pytest.raises(UsageError, match=f"--prompts .* with {words}"):
        sample(trained, tmp_path / "s.zarr", settings)


def test_a_generator_without_classes_takes_no_prompts(make_trained, tmp_path):
    settings = SampleOptions(steps=3, prompts=write(tmp_path / "p.txt", "a bee\n"))
    with pytest.raises(UsageError, match="without classes"):
        sample(make_trained(classes=0), tmp_path / "s.zarr", settings)
    assert not (tmp_path / "s.zarr").exists()
