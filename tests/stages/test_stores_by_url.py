"""What reads a store reads it by its URL too, with the same results."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec import filesystem

from grncli import copy


@pytest.fixture(scope="module")
def store(grn_inside: Callable, media_dir: Path, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "bits.zarr"
    done = grn_inside("tokenize", media_dir, path, "--tokenizer", tokenizer, "--size", "16", "--labels", "dirs")
    assert done.returncode == 0, done.stderr
    captions = path.parent / "captions.jsonl"
    captions.write_text(json.dumps({"source": str(media_dir / "a/00.png"), "caption": "an ant"}) + "\n")
    assert grn_inside("captions", path, captions).returncode == 0
    return path


@pytest.fixture(scope="module")
def url(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        copy(store, "memory://stores-by-url/bits.zarr")
        yield "memory://stores-by-url/bits.zarr"
    filesystem("memory").rm("/stores-by-url", recursive=True)


def both(grn_inside: Callable, store: Path, url: str, *arguments: object) -> list[dict]:
    """The JSON of a command with the store and with its URL in the place of STORE, which are called alike then."""
    documents = []
    for place in (store, url):
        done = grn_inside(*(place if argument == "STORE" else argument for argument in arguments), "--json")
        assert done.returncode == 0, done.stderr
        documents.append(json.loads(done.stdout.replace(str(place), "STORE")))
    return documents


def test_info(grn_inside, store, url):
    ours, theirs = both(grn_inside, store, url, "info", "STORE", "--verify")
    assert theirs == {**ours, "disk_bytes": None}
    assert theirs["captions"]["captions"] == 1


def test_info_of_two(grn_inside, store, url, tmp_path):
    done = grn_inside("info", url, store)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{url}, {store}: no settings differ\n"


def test_quantize_stats(grn_inside, store, url):
    ours, theirs = both(grn_inside, store, url, "quantize-stats", "STORE")
    assert {**ours, "made": None} == {**theirs, "made": None}  # without the time


def test_decode(grn_inside, store, url, tokenizer, tmp_path, read_tree):
    for name, place in (("local", store), ("url", url)):
        done = grn_inside("decode", place, tmp_path / name, "--tokenizer", tokenizer)
        assert done.returncode == 0, done.stderr
    found, expected = read_tree(tmp_path / "url"), read_tree(tmp_path / "local")
    assert {name: data for name, data in found.items() if name.endswith((".png", ".mp4"))} == {
        name: data for name, data in expected.items() if name.endswith((".png", ".mp4"))
    }
    assert len(found) == len(expected) > 10


def test_eval_recon(grn_inside, store, url, tokenizer, media_dir):
    common = ("--tokenizer", tokenizer, "--compare", media_dir, "--metrics", "psnr", "--limit", "4")
    ours, theirs = both(grn_inside, store, url, "eval", "recon", "STORE", *common)
    assert [row["psnr"] for row in _rows(theirs)] == [row["psnr"] for row in _rows(ours)]


def _rows(document: object) -> list[dict]:
    """Every object in a document that has a PSNR."""
    inner = list(document.values()) if isinstance(document, dict) else document if isinstance(document, list) else []
    here = [document] if isinstance(document, dict) and "psnr" in document else []
    return [*here, *(row for each in inner for row in _rows(each))]


def test_a_dry_run_of_a_training(grn_inside, store, url, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    network = (
        "{prediction: bit, depth: 2, width: 16, heads: 2, bottleneck: 8, in_context_tokens: 2, in_context_start: 0}"
    )
    recipe.write_text(f"kind: generator\nnetwork: {network}\ndata: {{batch: 2}}\ntraining: {{steps: 2}}\n")
    ours, theirs = both(grn_inside, store, url, "train-gen", recipe, "STORE", "--dry-run")
    assert theirs["samples"] == ours["samples"]
