"""A command opens its store, finds its checkpoint, parses its recipe and lists its sources once."""

import sys
import threading
from collections import Counter

import pytest
from grncli.store.samplelines import SampleLines
from grncli.store.writer import PartWriter

from grncli.decoding.store_decoding import StoreDecoder
from grncli.media.sources import list_sources
from grncli.runs.checkpoint import find_checkpoint
from grncli.runs.recipe import parse_recipe
from grncli.runs.tokenizers import open_tokenizer
from grncli.store import BitStore

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
    each = SampleLines.record
    counts = count_calls((*opened, each, StoreDecoder.decode), lambda: grn_inside(*arguments))
    samples = len(BitStore(store))
    assert counts.pop(StoreDecoder.decode.__qualname__) < samples  # in batches
    assert counts == once(*opened) | {each.__qualname__: samples}


def test_decode_that_finds_its_files_decodes_nothing(store, count_calls, grn_inside, run_dir, tmp_path):
    arguments = ["decode", store, tmp_path / "out", "--tokenizer", run_dir, "--device", "cpu"]
    functions = (*NETWORK, BitStore.__init__)
    for decoded in (True, False):
        counts = count_calls((*functions, StoreDecoder.decode), lambda: grn_inside(*arguments))
        assert bool(counts.pop(StoreDecoder.decode.__qualname__)) == decoded
        assert counts == once(*functions)
