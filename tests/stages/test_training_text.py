"""``grn train-gen`` for text: from captioned stores and features to a run, in the same steps for any processes."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import pytest
import torch
import yaml
from captioned_data import CLIP, SQUARE, TASKS, WIDE, WIDTH, caption, make_features, make_store

from grncli import copy
from grncli.runs.generator_recipe import AskedGeneratorRecipe
from grncli.runs.recipe import read_recipe
from grncli.runs.tokenizers import open_tokenizer
from grncli.runtime.errors import StoreError, UsageError
from grncli.runtime.processes import Processes
from grncli.runtime.tensor_files import read_tensors
from grncli.store import open_store
from grncli.store.captions import Caption, CaptionLine, replace_captions
from grncli.store.text_features import open_features
from grncli.text.templates import final_prompt, prompt_digest
from grncli.training.captioned_plan import CaptionedPlan
from grncli.training.generator_training import make_plan
from grncli.training.packed_loader import PackedLoader

Grn = Callable[..., subprocess.CompletedProcess[str]]

RECIPE = """\
kind: generator
network: {type: text_transformer, depth: 2, width: 16, heads: 2, key_value_heads: 2, hidden: 16}
data: {type: packed, tokens: 48, sequences: 2, window: 16, validation: 3}
refinement: {condition_dropout: 0.2, shift: area, tokens_power: 0.5, first_frame: 0.4}
optimization: {learning_rate: 1e-3, ema: 0.6}
training: {steps: 8, log_every: 1, checkpoint_every: 4, validate_every: 4, dtype: float32}
text:
  image: {prefix: <T2I>}
  clip: {prefix: <T2V>, suffix: " Good."}
  first_frame: {prefix: <I2V>}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "recipe.yaml").write_text(RECIPE)
    make_store(folder / "a.zarr", {SQUARE: 20, CLIP: 9})
    make_store(folder / "b.zarr", {SQUARE: 11, WIDE: 9}, first=30)
    make_features(folder / "f.zarr")
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> CaptionedPlan:
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe)
    made = make_plan(recipe, [folder / "a.zarr", folder / "b.zarr"], text=folder / "f.zarr")
    assert isinstance(made, CaptionedPlan)
    return made


def asked(folder: Path, *changes: object, **options: object) -> list[object]:
    named = [part for name, value in options.items() for part in (f"--{name}", value)]
    return [
        "train-gen",
        folder / "recipe.yaml",
        folder / "a.zarr",
        folder / "b.zarr",
        *changes,
        *named,
        "--device",
        "cpu",
    ]


@pytest.fixture(scope="module")
def trained(folder: Path, grn: Grn) -> Path:
    done = grn(*asked(folder, text=folder / "f.zarr", out=folder / "run"))
    assert done.returncode == 0, done.stderr
    return folder / "run"


def weights(run: Path, step: int = 8, name: str = "weights") -> dict[str, torch.Tensor]:
    return read_tensors(run / f"checkpoints/step-{step:08d}/{name}.safetensors")


# The plan


def test_sizes_encoder_and_grids_are_settled_by_bits_and_features(plan: CaptionedPlan) -> None:
    network, text = plan.recipe.network, plan.recipe.text
    assert (network.rounds, network.channels, network.text_width) == (2, 3, WIDTH)
    assert text.encoder == {"name": "toy", "sha256": "a0" * 32}
    assert text.max_tokens == 32
    assert text.clip.prefix == "<T2V>"
    assert plan.recipe.bits.grids == {"1x2x2": 31, "1x2x3": 9, "3x2x2": 9}


def test_stores_and_features_by_url_give_the_same_batches(
    plan: CaptionedPlan, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("a", "b", "f"):
        copy(folder / f"{name}.zarr", f"memory://text-by-url/{name}.zarr")
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe)
    urls = [Path(f"memory://text-by-url/{name}.zarr") for name in "abf"]
    remote = make_plan(recipe, urls[:2], text=urls[2])
    assert isinstance(remote, CaptionedPlan)
    assert (remote.captions, remote.recipe) == (plan.captions, plan.recipe)
    loaders = [PackedLoader(each.samples, each.rows, each.recipe).batches(0) for each in (remote, plan)]
    for found, expected in islice(zip(*loaders, strict=True), 6):
        for ours, theirs in zip(chain(*found.sequences), chain(*expected.sequences), strict=True):
            assert torch.equal(ours.bits, theirs.bits)
            assert torch.equal(ours.text, theirs.text)
    for loader in loaders:
        loader.close()


def test_samples_without_a_caption_are_left_out(plan: CaptionedPlan, folder: Path) -> None:
    lacking = {f"{store} {line['source']}" for store in "ab" for line in open_store(folder / f"{store}.zarr").records()}
    captioned = [number for number in range(len(plan.samples)) if plan.samples.counts.prompts[number]]
    assert plan.rows.tolist() == captioned
    assert 0 < len(captioned) < len(lacking)


def test_a_sample_is_read_with_its_own_bits_and_the_features_of_its_own_prompt(
    plan: CaptionedPlan, folder: Path
) -> None:
    features = open_features(folder / "f.zarr")
    loader = PackedLoader(plan.samples, plan.rows, plan.recipe)
    entries = loader.plan.drawn(0, plan.rows)
    seen = set()
    for entry, sample in zip(entries, plan.samples.read(entries), strict=True):
        path, grid, _, row = sample.key.split()
        store = open_store(path)
        view = store.grid(tuple(map(int, grid.split("x"))))
        assert (sample.bits.numpy() == view.read([int(row)])[0]).all()
        (line,) = store.records([view.indices[int(row)]])
        task = "image" if grid.startswith("1x") else "first-frame" if sample.clean_first else "clip"
        number = int(line["source"].split("-")[2].removesuffix(".png"))
        finals = [""] if entry["prompt"] == -1 else [final_prompt(each, *TASKS[task]) for each in caption(number)]
        known = features.read([prompt_digest(final) for final in finals])
        assert any(torch.equal(sample.text, each) for each in known)
        seen.add(task)
    assert seen == set(TASKS)


def test_a_clip_without_prompts_for_a_clean_first_frame_needs_none(folder: Path, tmp_path: Path) -> None:
    make_features(tmp_path / "f.zarr", ("image", "clip"))
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe, ["refinement.first_frame=0"])
    made = make_plan(recipe, [folder / "a.zarr"], text=tmp_path / "f.zarr")
    assert isinstance(made, CaptionedPlan)
    assert (made.samples.counts.clean_first == -1).all()


def test_clips_are_trained_with_the_words_of_their_own_source(folder: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", {CLIP: 2})
    words = {f"3-2-{row}.png": f"Words {'go on ' * row}to {row}." for row in range(2)}
    said = (Caption(None, "the same"),)
    replace_captions({store / "part-00000": [CaptionLine(name, said, {"q": own}) for name, own in words.items()]})
    finals = ["", *(f"<T2V>the same {own}" for own in words.values())]
    make_features(tmp_path / "f.zarr", finals=finals)
    changes = ["refinement.first_frame=0", "text.clip.suffix_field=q", "data.validation=0"]
    made = make_plan(
        read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe, changes), [store], text=tmp_path / "f.zarr"
    )
    assert isinstance(made, CaptionedPlan)
    assert made.samples.counts.lengths[made.samples.counts.first].tolist() == [5, 7]
    assert made.recipe.text.clip.suffix_field == "q"


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_processes_trains_on_the_same_samples_in_the_same_steps(plan: CaptionedPlan, count: int) -> None:
    recipe = replace(plan.recipe, data=replace(plan.recipe.data, sequences=4))

    def steps(processes: Processes) -> list[list[tuple[str, ...]]]:
        batches = PackedLoader(plan.samples, plan.rows, recipe, processes).batches(2)
        found = [[tuple(s.key for s in sequence) for sequence in next(batches).sequences] for _ in range(3)]
        batches.close()
        return found

    shares = [steps(Processes(rank=rank, count=count)) for rank in range(count)]
    assert all(len(sequences) == 4 // count for share in shares for sequences in share)
    together = [sorted(sequence for share in shares for sequence in share[step]) for step in range(3)]
    assert together == [sorted(step) for step in steps(Processes(rank=0, count=1))]


def test_held_out_samples_are_never_trained_on(plan: CaptionedPlan) -> None:
    loader = PackedLoader(plan.samples, plan.rows, plan.recipe)
    held = {sample.number for batch in loader.held_out() for sequence in batch.sequences for sample in sequence}
    assert len(held) == 3
    assert held.isdisjoint(loader.plan.rows.tolist())
    assert held | set(loader.plan.rows.tolist()) == set(plan.rows.tolist())


# The run


def test_a_run_says_what_it_was_trained_on_and_sample_knows_it(trained: Path, grn_inside: Grn) -> None:
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    assert recipe["text"]["encoder"] == {"name": "toy", "sha256": "a0" * 32}
    assert recipe["text"]["clip"]["suffix"] == " Good."
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(0.3 < line["filled"] <= 1 for line in lines)
    assert "validation_loss" in lines[3]
    info = grn_inside("info", trained, "--json")
    assert json.loads(info.stdout)["step"] == 8


def test_a_resumed_run_repeats_the_uninterrupted_one_bit_for_bit(trained: Path, folder: Path, grn_inside: Grn) -> None:
    out = folder / "resumed"
    assert grn_inside(*asked(folder, "training.steps=3", text=folder / "f.zarr", out=out)).returncode == 0
    assert grn_inside(*asked(folder, text=folder / "f.zarr", out=out)).returncode == 0
    for name in ("weights", "ema", "optimizer"):
        whole, parts = weights(trained, name=name), weights(out, name=name)
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_new_captions_are_other_data(trained: Path, folder: Path, grn_inside: Grn, tmp_path: Path) -> None:
    make_store(tmp_path / "b.zarr", {SQUARE: 11, WIDE: 9}, first=30)
    replace_captions({tmp_path / "b.zarr/part-00000": [CaptionLine("1-2-30.png", (Caption(None, "one 1"),))]})
    stores = folder / "a.zarr", tmp_path / "b.zarr"
    options = "--text", folder / "f.zarr", "--out", trained, "--device", "cpu"
    done = grn_inside("train-gen", folder / "recipe.yaml", *stores, "training.steps=9", *options)
    assert done.returncode == 1
    assert re.search(r"was trained on other data .* whose bits or captions differ", done.stderr)


def test_a_dry_run_counts_packed_steps(folder: Path, grn_inside: Grn) -> None:
    done = grn_inside(*asked(folder, "--dry-run", "--json", text=folder / "f.zarr"))
    assert done.returncode == 0, done.stderr
    costs = json.loads(done.stdout)
    assert costs["tokens_per_step"] == 96
    assert costs["largest_grid"] == "3x2x2"
    assert costs["flops_per_step"] > 0
    assert costs["memory"]["activations"] > 0


@pytest.mark.parametrize("prompts", ["[one 0]", "[]", "[a fish]"])
def test_a_sheet_is_drawn_of_the_prompts_of_the_recipe(
    folder: Path, grn_inside: Grn, make_run: Callable[..., Path], tmp_path: Path, prompts: str
) -> None:
    tokenizer = make_run(tmp_path / "tok")
    loaded = open_tokenizer(tokenizer)
    like = {"rounds": 4, "channels": loaded.network.channels, "stride": tuple(loaded.network.stride)}
    make_store(tmp_path / "a.zarr", {SQUARE: 8}, tokenizer=loaded.identity, **like)
    small = "training.steps=1", "data.validation=0", f"preview.prompts={prompts}", "preview.per_class=2"
    places = "--text", folder / "f.zarr", "--tokenizer", tokenizer, "--out", tmp_path / "run", "--device", "cpu"
    done = grn_inside("train-gen", folder / "recipe.yaml", tmp_path / "a.zarr", *small, *places)
    sheets = list((tmp_path / "run").glob("previews/*.png"))
    if "one" in prompts:
        assert done.returncode == 0, done.stderr
        assert [sheet.name for sheet in sheets] == ["samples-00000001.png"]
    else:
        assert done.returncode == 2
        assert ("preview.prompts is empty" if prompts == "[]" else "lacks 1 of 2 prompts") in done.stderr
        assert not (tmp_path / "run").exists()


# Beginning with other weights


@pytest.mark.parametrize("ema", ["restart", "keep"])
def test_a_training_begins_with_the_weights_of_another_run(
    trained: Path, folder: Path, grn_inside: Grn, ema: str, tmp_path: Path
) -> None:
    tiny = ["optimization.learning_rate=1e-30", "training.steps=1", "training.checkpoint_every=1"]
    done = grn_inside(
        *asked(folder, *tiny, text=folder / "f.zarr", out=tmp_path / "run", **{"from": trained, "ema": ema})
    )
    assert done.returncode == 0, done.stderr
    source = "weights" if ema == "keep" else "ema"
    begun, source_weights = weights(tmp_path / "run", 1), weights(trained, name=source)
    assert all(torch.allclose(begun[key], value) for key, value in source_weights.items())
    average, kept = weights(tmp_path / "run", 1, "ema"), weights(trained, name="ema")
    moved = {key: (average[key] - value).abs().max() for key, value in kept.items()}
    # The average has seen 8 steps, so that its decay is 9 / 18: half of the old one is left.
    far = {key: (begun[key] - value).abs().max() for key, value in kept.items()}
    assert all(moved[key] <= 0.51 * far[key] + 1e-7 for key in kept)
    recipe = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert recipe["started_from"]["ema"] == ema


def test_a_network_of_other_sizes_is_refused(trained: Path, folder: Path, grn_inside: Grn, tmp_path: Path) -> None:
    done = grn_inside(
        *asked(folder, "network.depth=3", text=folder / "f.zarr", out=tmp_path / "run", **{"from": trained})
    )
    assert done.returncode == 2
    assert "depth" in done.stderr
    assert not (tmp_path / "run").exists()


# Refusals


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["network.text_width=7"], "features are 6 wide, and the recipe says network.text_width=7"),
        (["text.encoder={name: toy, sha256: ffff}"], "leave text.encoder out"),
        (["text.max_tokens=3"], "prompts have up to 8 tokens, and the recipe says text.max_tokens=3"),
        (["data.tokens=14"], "raise data.tokens, or leave such samples out with data.too_long=drop"),
        (["data.validation=99"], "data.validation is 99"),
        (["network.channels=4"], "channels"),
        (["data.type=batches"], "packed"),
        (["optimization.gradient_accumulation=3"], "data.sequences is 2"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(folder: Path, grn_inside: Grn, changes: list[str], words: str) -> None:
    done = grn_inside(*asked(folder, *changes, text=folder / "f.zarr", out=folder / "refused"))
    assert done.returncode in (1, 2)
    assert words in " ".join(done.stderr.split())
    assert not (folder / "refused").exists()


def test_samples_that_are_too_long_are_left_out_and_counted_where_the_recipe_says_so(folder: Path) -> None:
    changes = ["data.tokens=14", "data.too_long=drop", "data.validation=0"]
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe, changes)
    said: list[str] = []
    made = make_plan(recipe, [folder / "a.zarr", folder / "b.zarr"], text=folder / "f.zarr", say=said.append)
    assert isinstance(made, CaptionedPlan)
    assert (made.samples.counts.most()[made.rows] <= 14).all()
    assert any("6 of 49 samples are too long and left out" in sentence for sentence in said)


def test_lacking_features_are_named_with_the_command_that_adds_them(folder: Path, tmp_path: Path) -> None:
    make_features(tmp_path / "f.zarr", ("image", "clip"))
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe)
    with pytest.raises(UsageError, match=r"lacks .* prompts: .*<I2V>.*grn encode-text .*a\.zarr .*--task first-frame"):
        make_plan(recipe, [folder / "a.zarr"], text=tmp_path / "f.zarr", place="recipe.yaml")


def test_a_store_without_captions_is_refused(folder: Path, tmp_path: Path) -> None:
    make_store(tmp_path / "c.zarr", {SQUARE: 1})
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe)
    with pytest.raises(StoreError, match="no sample has a caption; add them with: grn captions"):
        make_plan(recipe, [tmp_path / "c.zarr"], text=folder / "f.zarr")


def test_text_is_needed_by_a_recipe_for_text_and_refused_by_one_for_classes(folder: Path) -> None:
    recipe = read_recipe(folder / "recipe.yaml", AskedGeneratorRecipe)
    with pytest.raises(UsageError, match="--text is missing"):
        make_plan(recipe, [folder / "a.zarr"])
    with pytest.raises(UsageError, match=r"is for recipes with network\.type=text_transformer"):
        make_plan(AskedGeneratorRecipe(), [folder / "a.zarr"], text=folder / "f.zarr")
