"""A command opens its store, finds its checkpoint, parses its recipe and lists its sources once."""

import sys
import threading
from collections import Counter

import pytest

from grncli.decoding.store_decoding import StoreDecoder
from grncli.media.listing import list_sources
from grncli.runs.checkpoint import find_checkpoint
from grncli.runs.loading import load_network
from grncli.runs.recipe import parse_recipe
from grncli.runs.tokenizers import open_tokenizer
from grncli.store import BitStore, PartWriter
from grncli.store.rows.row_lines import RowLines

NETWORK = (find_checkpoint, parse_recipe, open_tokenizer)


@pytest.fixture
def count_calls():
    def count(functions, act):
        """How often each of ``functions`` is called while ``act`` runs, on any thread, by its qualified name."""
        names = {function.__code__: function.__qualname__ for function in functions}
        counts = Counter(dict.fromkeys(names.values(), 0))

        def profile(frame, event, argument):
            if event == "call" and frame.f_code in names:
                counts[names[frame.f_code]] += 1

        threading.setprofile(profile)
        sys.setprofile(profile)
        try:
            act()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        return counts

    return count


def once(*functions):
    return {function.__qualname__: 1 for function in functions}


@pytest.fixture(scope="module")
def store(media_dir, run_dir, tmp_path_factory, grn_inside):
    path = tmp_path_factory.mktemp("store") / "bits.zarr"
    done = grn_inside("tokenize", media_dir, path, "--tokenizer", run_dir, "--device", "cpu", "--workers", 0)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("options", [["--flip"], [], ["--dry-run"], ["--retry-failed"]])
def test_tokenize(options, store, count_calls, grn_inside, media_dir, run_dir, tmp_path):
    out = tmp_path / "new.zarr" if options == ["--flip"] else store
    arguments = ["tokenize", media_dir, out, "--tokenizer", run_dir, "--device", "cpu", "--workers", 0, *options]
    opening = BitStore.__init__ if options == ["--dry-run"] else PartWriter.__init__
    functions = (*NETWORK, list_sources, opening)
    assert count_calls(functions, lambda: grn_inside(*arguments)) == once(*functions)


def test_decode(store, count_calls, grn_inside, media_dir, run_dir, tmp_path):
    arguments = ["decode", store, tmp_path / "out", "--tokenizer", run_dir, "--device", "cpu", "--compare", media_dir]
    opened = (*NETWORK, list_sources, BitStore.__init__)
    counts = count_calls((*opened, RowLines.of, StoreDecoder.decode), lambda: grn_inside(*arguments))
    batches = counts.pop(StoreDecoder.decode.__qualname__)
    assert batches < len(BitStore(store))
    assert counts == once(*opened) | {RowLines.of.__qualname__: batches}


def test_decode_that_finds_its_files_decodes_nothing(store, count_calls, grn_inside, run_dir, tmp_path):
    arguments = ["decode", store, tmp_path / "out", "--tokenizer", run_dir, "--device", "cpu"]
    functions = (*NETWORK, BitStore.__init__)
    for decoded in (True, False):
        counts = count_calls((*functions, StoreDecoder.decode), lambda: grn_inside(*arguments))
        assert bool(counts.pop(StoreDecoder.decode.__qualname__)) == decoded
        assert counts == once(*functions)


@pytest.fixture(scope="module")
def generator(make_run, make_generator_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return make_generator_run(folder / "gen", make_run(folder / "tok", rounds=2)), folder / "tok"


def test_sample(generator, count_calls, grn_inside, tmp_path):
    run, tokenizer = generator
    arguments = ["sample", run, tmp_path / "out", "--tokenizer", tokenizer, "--steps", 2, "--per-class", 1]
    opened = (open_tokenizer, PartWriter.__init__, BitStore.__init__)
    of_each_run = (find_checkpoint, parse_recipe, load_network)
    counts = count_calls((*opened, *of_each_run), lambda: grn_inside(*arguments, "--device", "cpu"))
    assert counts == once(*opened) | {function.__qualname__: 2 for function in of_each_run}


def test_eval_recon_of_a_store(store, count_calls, grn_inside, media_dir, run_dir):
    options = ["--tokenizer", run_dir, "--compare", media_dir, "--metrics", "psnr,rfd", "--features", run_dir]
    arguments = ["eval", "recon", store, *options, "--size", "native", "--device", "cpu"]
    opened = (*NETWORK, list_sources, BitStore.__init__)
    counts = count_calls((*opened, RowLines.of, StoreDecoder.read), lambda: grn_inside(*arguments))
    batches = counts.pop(StoreDecoder.read.__qualname__)
    assert batches < len(BitStore(store))
    assert counts == once(*opened) | {RowLines.of.__qualname__: batches}


def test_eval_gen_and_stats_of_a_store(store, count_calls, grn_inside, run_dir, tmp_path):
    options = ["--tokenizer", run_dir, "--features", run_dir, "--size", "native", "--device", "cpu"]

    opens = (*NETWORK, BitStore.__init__)

    def opened(*arguments):
        results = []
        counts = count_calls(opens, lambda: results.append(grn_inside("eval", *arguments, *options)))
        assert results[0].returncode == 0, results[0].stderr
        return counts

    assert opened("stats", store, tmp_path / "a.npz") == once(*opens)
    assert opened("gen", store, "--reference", tmp_path / "a.npz") == once(*opens)


RECIPE = """\
kind: generator
network: {prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 1}
data: {batch: 4, validation: 2}
training: {steps: 2, log_every: 1, checkpoint_every: 2, validate_every: 2, preview_every: 2, dtype: float32}
"""


def test_train_gen(store, count_calls, grn_inside, run_dir, tmp_path):
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    arguments = ["train-gen", tmp_path / "tiny.yaml", store, "--out", tmp_path / "run", "--tokenizer", run_dir]
    opened, records = (find_checkpoint, open_tokenizer, BitStore.__init__), RowLines.of
    counts = count_calls((*opened, parse_recipe, records), lambda: grn_inside(*arguments, "--device", "cpu"))
    recipes = {parse_recipe.__qualname__: 2}  # its own, and the tokenizer's
    assert counts == once(*opened) | recipes | {records.__qualname__: 0}
