"""The keywords of calls: the options of the commands, as text or as Python values."""

import inspect
import logging
from pathlib import Path

import pytest
from typer.main import get_command

import grncli
from grncli.calls.media_calls import parse_clips, parse_select, tokenize_settings
from grncli.calls.option_forms import following, parse_part, settled
from grncli.calls.sampling_files import sample_files, sample_options
from grncli.calls.statistics_call import parse_range
from grncli.calls.training_calls import override_texts
from grncli.cli import app
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor

# Options that end at the command line.
PRINTED = {"json", "dry_run", "quiet", "log_file", "debug"}
# Arguments and options by other names in Python, where a dash, "no" or a keyword of the language stands in the way.
RENAMED = {"no_captions": "captions", "drawn": "set", "folder": "out", "run": "generator", "more": "grid"}
CALLS = {
    "shapes": grncli.draw_shapes,
    "tokenize": grncli.tokenize,
    "decode": grncli.decode,
    "quantize-stats": grncli.quantize_stats,
    "train-tokenizer": grncli.train_tokenizer,
    "encode-text": grncli.encode_text,
    "train-gen": grncli.train_generator,
    "sample": sample_files,
    "eval gen": grncli.evaluate,
    "eval recon": grncli.evaluate_reconstruction,
    "store drop": grncli.drop_samples,
    "store compact": grncli.compact_store,
    "store split": grncli.split_store,
    "store merge": grncli.merge_stores,
    "store dedupe": grncli.dedupe_store,
    "eval stats": grncli.save_statistics,
    "eval search": grncli.search_settings,
    "eval export": grncli.export_samples,
    "captions": grncli.add_captions,
    "status": grncli.work_status,
    "export": grncli.export_run,
}


def options_of(command):
    found = get_command(app)
    for word in command.split():
        found = found.commands[word]
    keywords = inspect.signature(CALLS[command]).parameters
    names = {each.name: each for each in found.params if each.name != "help"}
    return {name if name in keywords else RENAMED.get(name, name): each for name, each in names.items()}


@pytest.mark.parametrize("command", CALLS)
def test_every_option_of_a_command_is_a_keyword_of_its_call(command):
    keywords = inspect.signature(CALLS[command]).parameters
    python_only = {"progress", "report", "processes", "max_time", "overrides"}
    if command == "eval gen":
        python_only.add("shows_pictures")  # what --html asks for
    assert set(options_of(command)) - PRINTED - python_only == set(keywords) - python_only


BOUNDED = {"batch", "limit", "sample", "frames", "per_class", "workers", "seed", "rounds"}


@pytest.mark.parametrize("command", ["tokenize", "decode", "quantize-stats", "sample", "eval gen", "eval recon"])
def test_a_number_below_the_least_of_a_command_is_refused_by_its_call(command):
    infos = {name: option.type_descriptor.parameter_info for name, option in options_of(command).items()}
    least = {name: info.min for name, info in infos.items() if name in BOUNDED and info.min is not None}
    assert "batch" in least
    for name in least:
        for value in (least[name] - 1, 9) if name == "rounds" else (least[name] - 1, least[name] + 0.5):
            with pytest.raises(UsageError, match=f"^--{name.replace('_', '-')} {value}: expected"):
                settled({name: value})
        assert settled({name: least[name]})[name] == least[name]


@pytest.mark.parametrize("command", CALLS)
def test_the_defaults_are_those_of_the_command(command):
    options, differing = options_of(command), {}
    for name, keyword in inspect.signature(CALLS[command]).parameters.items():
        if name in options and keyword.default is not inspect.Parameter.empty:
            theirs, ours = options[name].default, keyword.default
            if (theirs or None) != (ours or None):
                differing[name] = (theirs, ours)
    differing.pop("captions", None)  # --no-captions is its contrary
    # None is what is measured, or sampled, without the option.
    assert {name: pair for name, pair in differing.items() if pair[1] is not None} == {}


def test_a_mistyped_option_is_answered_with_the_one_that_may_be_meant():
    with pytest.raises(TypeError, match=r"tokenize.*'batches'; did you mean batch"):
        grncli.tokenize("src", "out", tokenizer="tok", batches=3)
    with pytest.raises(TypeError, match="'labels'"):
        grncli.sample("gen", out="out", labels=[3])
    with pytest.raises(TypeError, match=r"'nonsense'$"):
        grncli.train_tokenizer("recipe", "src", "out", nonsense=3)


def test_a_url_is_no_path():
    with pytest.raises(UsageError, match="is a URL"):
        grncli.tokenize("https://example.org/a.zip", "out", tokenizer="tok")
    with pytest.raises(UsageError, match="is a URL"):
        grncli.decode("bits.zarr", "s3://out", tokenizer="tok")
    with pytest.raises(UsageError, match="is a URL"):
        grncli.sample("gen", out="out", tokenizer="s3://tok")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"size": 256}, {"size": "256"}),
        ({"size": (32, 48)}, {"size": "32x48"}),
        ({"size": "native"}, {"size": "native"}),
        ({"grid": (5, 8, 8)}, {"grid": "5x8x8"}),
        ({"ratio": (16, 9)}, {"ratio": "16:9"}),
        ({"classes": 3}, {"classes": "3"}),
        ({"classes": ["ant", 7]}, {"classes": "ant,7"}),
        ({"metrics": ("psnr", "ssim")}, {"metrics": "psnr,ssim"}),
        ({"guidance_interval": (0.44, 1)}, {"guidance_interval": "0.44:1"}),
        ({"part": (2, 4)}, {"part": 2, "parts": 4}),
        ({"part": "2/4"}, {"part": 2, "parts": 4}),
        ({"sheet": "a.png"}, {"sheet": Path("a.png")}),
        ({"frames": None}, {}),
        ({"flip": False, "seed": 0}, {"flip": False, "seed": 0}),
    ],
)
def test_values_mean_what_their_text_means(value, text):
    assert settled({**value, "device": "cpu"}) == {**text, "device": "cpu"}


def test_the_part_of_a_process_is_that_of_its_task(monkeypatch):
    for name, value in {"ID": 3, "MIN": 0, "MAX": 7, "COUNT": 8, "STEP": 1}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert settled({"part": "auto", "device": "cpu"}) == {"part": 3, "parts": 8, "device": "cpu"}


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (None, (None, None, None)),
        (":", (None, None, None)),
        (slice(2, 9, 3), (2, 9, 3)),
        (slice(None, -1), (None, -1, None)),
        ("2:9:3", (2, 9, 3)),
        (5, (5, 6, None)),
        ("-1", (-1, None, None)),
    ],
)
def test_samples_are_selected_as_by_a_slice(value, bounds):
    assert parse_select(value) == bounds


@pytest.mark.parametrize(
    ("parse", "value", "words"),
    [
        (parse_select, "a:b", "--select a:b"),
        (parse_select, slice(4, 0, -1), "--select 4:0:-1"),
        (parse_part, (4, 4), "--part 4/4"),
        (parse_part, "x", "--part x"),
        (parse_clips, 0, "--clips 0"),
        (parse_range, (5, 4), "--rounds 5:4"),
        (parse_range, 9, "--rounds 9"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_the_options_name(parse, value, words):
    with pytest.raises(UsageError, match=words):
        parse(value)


def test_options_become_the_settings_of_the_stages():
    settings = tokenize_settings({"clips": "first", "size": (16, 24), "workers": 0, "captions": False, "device": "cpu"})
    assert (settings.clips, settings.size, settings.workers, settings.captions) == (1, "16x24", 0, False)
    options = sample_options({"tokenizer": Path("tok"), "keep": 0.5, "init": "a.zarr", "steps": None, "device": "cpu"})
    assert (options.tokenizer, options.keep, options.init, options.steps) == ("tok", "0.5", Path("a.zarr"), 50)
    assert options.dtype == "auto"


def test_fields_of_a_recipe_are_changed_by_name_or_as_the_command_line_does():
    asked = {"training.steps": 5, "data.clip": None, "losses.gan": {"weight": 0.5}, "network.prediction": "bit"}
    texts = ["training.steps=5", "data.clip=null", 'losses.gan={"weight": 0.5}', "network.prediction=bit"]
    assert override_texts(asked, None) == override_texts(texts, None) == texts
    assert override_texts({}, "float32") == ["training.dtype=float32"]
    with pytest.raises(UsageError, match="contradict"):
        override_texts({"training.dtype": "bfloat16"}, "float32")


def test_a_callback_hears_of_progress_and_the_logger_of_everything_else(caplog):
    heard = []
    monitor = following(lambda *told: heard.append(told))
    monitor.progress(1, None, "note")
    with caplog.at_level(logging.INFO, "grncli"):
        monitor.say("a sentence")
    assert (heard, caplog.messages) == ([(1, None, "note")], ["a sentence"])
    assert monitor.stop_reason is None


def test_a_limit_of_time_holds_with_a_callback_and_with_a_monitor():
    said = []
    for progress in (None, print, Monitor(say=said.append)):
        assert following(progress, 1e-9).stop_reason is not None
        assert following(progress, "1h").stop_reason is None
    own = Monitor()
    assert following(own) is own
    following(Monitor(say=said.append), 60).say("still here")
    assert said == ["still here"]
