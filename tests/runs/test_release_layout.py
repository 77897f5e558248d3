"""Networks in the layout of the release: its names and shapes, back again bit for bit, or a sentence why not."""

from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import save_file

from grncli import export_run
from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.runs.checkpoint import EMA, find_checkpoint, write_checkpoint
from grncli.runs.exporting import MODEL
from grncli.runs.importing import import_released
from grncli.runs.recipe import dump_recipe, read_own_recipe
from grncli.runs.registry import KINDS
from grncli.runs.released_names import TOKENIZER_NAMES, rename
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runtime.errors import CheckpointError, UsageError
from grncli.runtime.tensor_files import read_released, read_tensors

RELEASED = {
    "tokenizer.ckpt": ("ema", []),
    "c2i_ind.pth": ("model_ema1", ["in_context_start=1"]),
    "c2i_bit.pth": ("model_ema1", ["in_context_start=1"]),
}


def weights_of(run):
    return read_tensors(find_checkpoint(run) / EMA)


def recipe_of(run):
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    return {name: section for name, section in recipe.items() if name != "imported"}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], tensor) for name, tensor in other.items())


def change(run, **sections):
    """Another recipe for a run, whose weights stay."""
    kind = next(kind for kind in KINDS if kind.name == yaml.safe_load((run / "recipe.yaml").read_text())["kind"])
    recipe = read_own_recipe(run / "recipe.yaml", kind.schema)
    changed = {name: replace(getattr(recipe, name), **fields) for name, fields in sections.items()}
    (run / "recipe.yaml").write_text(dump_recipe(replace(recipe, **changed)))


# The release's own files


@pytest.mark.parametrize("file", RELEASED)
def test_a_released_network_comes_back_as_it_was_released(release_fixtures, tmp_path, file):
    entry, settings = RELEASED[file]
    import_released(release_fixtures / file, tmp_path / "run", settings=settings)
    made = export_run(tmp_path / "run", tmp_path / "out", layout="release")
    assert same(read_tensors(made.file), read_released(release_fixtures / file)[entry])


def test_a_released_text_generator_has_its_names_but_for_the_chunks(release_fixtures, tmp_path):
    import_released(release_fixtures / "t2iv_bit.pth", tmp_path / "run", settings=["attention=text-only"])
    made = export_run(tmp_path / "run", tmp_path / "out", layout="release")
    theirs = read_released(release_fixtures / "t2iv_bit.pth")  # two chunks of one block, where ours is one of two
    in_one_chunk = {name.replace("chunks.1.module.0", "chunks.0.module.1"): each for name, each in theirs.items()}
    assert same(read_tensors(made.file), in_one_chunk)


@pytest.mark.parametrize("depth", [4, 28, 36])
def test_blocks_lie_in_the_chunks_of_the_released_depths(make_tokenizer, make_run, make_text_run, tmp_path, depth):
    run = make_text_run(tmp_path / "gen", make_run(tmp_path / "tok"), depth=depth)
    names = read_tensors(export_run(run, tmp_path / "out", layout="release").file)
    chunks = {4: 2, 28: 7, 36: 6}[depth]
    places = {tuple(name.split(".")[1:4:2]) for name in names if name.startswith("block_chunks.")}
    assert places == {(str(i), str(j)) for i in range(chunks) for j in range(depth // chunks)}


# There and back


@pytest.fixture
def runs(make_run, make_generator_run, make_text_run, tmp_path):
    def make(kind, **options):
        tokenizer = make_run(tmp_path / "tok", rounds=2)
        if kind == "tokenizer":
            return tokenizer
        return (make_generator_run if kind == "classes" else make_text_run)(tmp_path / "run", tokenizer, **options)

    return make


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("tokenizer", {}),
        ("classes", {"prediction": "ind"}),
        ("classes", {"prediction": "bit", "classes": 0}),
        ("text", {"attention": "text-only", "encoder": {"name": "minilm", "sha256": "12" * 32}}),
        ("text", {"attention": "full", "prediction": "ind", "key_value_heads": 2}),
    ],
)
def test_what_is_exported_and_imported_is_the_same_network(runs, tmp_path, kind, options):
    run = runs(kind, **options)
    made = export_run(run, tmp_path / "out", layout="release")
    described = import_released(made.file, tmp_path / "again")  # without any setting
    assert same(weights_of(tmp_path / "again"), weights_of(run))
    before, after = recipe_of(run), recipe_of(tmp_path / "again")
    assert after["network"] == before["network"]
    assert described["recipe"]["imported"]["file"] == MODEL
    for section, names in {"bits": ["stride", "fps"], "text": before.get("text") or {}}.items():
        assert all(after[section][name] == before[section][name] for name in names if section in before)
    assert after.get("rounds") == before.get("rounds")


def test_settings_of_the_user_come_before_those_of_the_file(runs, tmp_path):
    made = export_run(runs("classes"), tmp_path / "out", layout="release")
    import_released(made.file, tmp_path / "again", settings=["stride=[4,8,8]", "in_context_start=0"])
    recipe = recipe_of(tmp_path / "again")
    assert (recipe["bits"]["stride"], recipe["network"]["in_context_start"]) == ([4, 8, 8], 0)


@pytest.mark.parametrize("kind", ["tokenizer", "classes", "text"])
def test_bfloat16_comes_back_with_the_same_numbers(runs, tmp_path, kind):
    run = runs(kind)
    made = export_run(run, tmp_path / "out", layout="release", dtype="bfloat16")
    import_released(made.file, tmp_path / "again")
    rounded = {name: each.bfloat16().float() for name, each in weights_of(run).items()}
    assert same({name: each.float() for name, each in weights_of(tmp_path / "again").items()}, rounded)


# What the release has not


@pytest.mark.parametrize(
    ("kind", "options", "changes", "words"),
    [
        ("classes", {"grids": {"1x4x4": 1, "1x8x8": 1}}, {}, r"bits\.grids is \['1x4x4', '1x8x8'\], expected one grid"),
        ("classes", {"grids": {"1x4x8": 1}}, {}, r"bits\.grids"),
        ("classes", {"grids": {"3x4x4": 1}}, {}, r"bits\.grids"),
        ("classes", {"target": "relative"}, {}, r"refinement\.target is relative, expected absolute"),
        ("text", {}, {"refinement": {"target": "relative"}}, r"refinement\.target is relative"),
        ("text", {"positions": "per-token"}, {}, r"network\.positions is per-token, expected spread"),
    ],
)
def test_what_the_release_has_not_is_named(runs, tmp_path, kind, options, changes, words):
    run = runs(kind, **options)
    change(run, **changes)
    with pytest.raises(UsageError, match=words) as caught:
        export_run(run, tmp_path / "out", layout="release")
    assert str(caught.value).endswith("generators have; export it with --layout grn")
    assert not (tmp_path / "out").exists()
    assert export_run(run, tmp_path / "out").file.is_file()


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"attention": False}, r"network\.attention is false, expected true"),
        (
            {"multipliers": (1, 1, 1), "halve_time": (2,), "halve_space": (1,)},
            r"network\.halve_time is \[2\], expected stages that halve space",
        ),
    ],
)
def test_a_tokenizer_of_another_architecture_is_refused(filled, tmp_path, sizes, words):
    network = filled(Tokenizer(TokenizerConfig(channels=4, encoder_width=4, decoder_width=4, **sizes), 4))
    recipe = TokenizerRecipe(network=network.config, imported={"file": "drawn"})
    write_checkpoint(tmp_path / "run", 0, {"ema": network.state_dict()}, {"step": 0}, {})
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(recipe))
    with pytest.raises(UsageError, match=words):
        export_run(tmp_path / "run", tmp_path / "out", layout="release")


# Files of others


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('{"depth": 3}', "settings has the field 'depth', which no class-conditional generator has"),
        ("[1]", r"settings is \[1\], expected fields and values"),
        ("{", "cannot be read as JSON"),
        ('{"rounds": 99, "prediction": "bit", "in_context_start": 1}', "rounds is 99"),
        ('{"rounds": [1], "prediction": {}, "in_context_start": 1}', "prediction is"),
        ('{"rounds": 2, "prediction": "bit", "in_context_start": 1, "stride": "far"}', r"bits\.stride"),
        ("{}", "give it with --set"),
    ],
)
def test_a_header_that_says_something_else_gets_one_sentence(runs, tmp_path, settings, words):
    made = export_run(runs("classes"), tmp_path / "out", layout="release")
    save_file(read_tensors(made.file), tmp_path / "other.safetensors", {"settings": settings})
    with pytest.raises((CheckpointError, UsageError), match=words) as caught:
        import_released(tmp_path / "other.safetensors", tmp_path / "again")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_a_damaged_safetensors_file_gets_one_sentence(runs, tmp_path):
    made = export_run(runs("classes"), tmp_path / "out", layout="release")
    (tmp_path / "cut.safetensors").write_bytes(made.file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: cannot be read as safetensors"):
        import_released(tmp_path / "cut.safetensors", tmp_path / "again")


def test_a_safetensors_file_of_weights_in_our_layout_is_not_taken_for_the_releases(runs, tmp_path):
    with pytest.raises(CheckpointError, match="expected the weights of a tokenizer"):
        import_released(find_checkpoint(runs("tokenizer")) / EMA, tmp_path / "again")


# Names


def test_every_name_leads_there_and_back(make_tokenizer):
    ours = {ours: theirs for theirs, ours in TOKENIZER_NAMES.items()}
    for name in make_tokenizer().state_dict():
        part = name.partition(".")[0]
        known = {"way": {"encoder": "down", "decoder": "up"}.get(part), "last": 9}
        assert rename(rename(name, ours, "tokenizer", **known), TOKENIZER_NAMES, "tokenizer") == name


def test_a_name_whose_parts_contradict_each_other_is_no_released_one():
    with pytest.raises(ValueError, match=r"'encoder\.downsamples\.0\.upsamples\.0\.shortcut\.weight'"):
        rename("encoder.downsamples.0.upsamples.0.shortcut.weight", TOKENIZER_NAMES, "released tokenizer")
