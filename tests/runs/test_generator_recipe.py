"""Recipes of generators: those we ship can be built, and a wrong value gets one sentence that names its place."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.runs.generator_recipe import AskedGeneratorRecipe, AskedTextGenerator, Bits, GeneratorRecipe, PackedData
from grncli.runs.generators import build_generator
from grncli.runs.recipe import dump_recipe, read_own_recipe, read_recipe
from grncli.runtime.errors import RecipeError
from grncli.training.run_setup import read_training_recipe

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("c2i-*.yaml"))
EACH_SHIPPED = pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
STATED = re.compile(r"([\d,.]+) M parameters with C = (\d+), M = (\d+) and (\d+) classes")


@pytest.fixture
def read(tmp_path):
    def read_text(text="", *overrides):
        file = tmp_path / "r.yaml"
        file.write_text(text, encoding="utf-8")
        return read_recipe(file, AskedGeneratorRecipe, overrides)

    return read_text


def settled(recipe, channels=16, rounds=4, classes=10):
    return recipe.network.settle(channels=channels, rounds=rounds, classes=classes)


def parameters_of(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_generator(config).parameters())


# The recipes we ship


def test_recipes_are_shipped():
    assert SHIPPED


@EACH_SHIPPED
def test_a_shipped_recipe_can_be_built(file):
    assert parameters_of(settled(read_recipe(file, AskedGeneratorRecipe))) > 0


@EACH_SHIPPED
def test_a_shipped_recipe_predicts_what_its_name_says(file):
    assert file.stem.endswith(read_recipe(file, AskedGeneratorRecipe).network.prediction)


@EACH_SHIPPED
def test_a_shipped_recipe_leaves_to_the_store_what_follows_from_it(file):
    network = read_recipe(file, AskedGeneratorRecipe).network
    assert (network.rounds, network.channels, network.classes) == (None, None, None)


@pytest.mark.parametrize(
    "file", [file for file in SHIPPED if STATED.search(file.read_text())], ids=lambda file: file.stem
)
def test_a_shipped_recipe_states_its_number_of_parameters(file):
    stated, channels, rounds, classes = STATED.search(file.read_text()).groups()
    config = settled(read_recipe(file, AskedGeneratorRecipe), int(channels), int(rounds), int(classes))
    assert f"{parameters_of(config) / 1e6:,.1f}" == stated


# Recipes for text

TEXT_RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("[ti]2[iv]-*.yaml"))
TEXT_STATED = re.compile(r"([\d,.]+) M parameters with C = (\d+), M = (\d+) and\n# text features (\d+) wide")


@pytest.mark.parametrize("file", TEXT_RECIPES, ids=lambda file: file.stem)
def test_a_shipped_text_recipe_leaves_to_bits_and_features_what_follows_from_them(file):
    recipe = read_training_recipe(file, AskedGeneratorRecipe, [])
    assert isinstance(recipe.network, AskedTextGenerator)
    assert (recipe.network.rounds, recipe.network.channels, recipe.network.text_width) == (None, None, None)
    assert isinstance(recipe.data, PackedData)


@pytest.mark.parametrize(
    "file", [file for file in TEXT_RECIPES if TEXT_STATED.search(file.read_text())], ids=lambda file: file.stem
)
def test_a_shipped_text_recipe_states_its_number_of_parameters(file):
    stated, *sizes = TEXT_STATED.search(file.read_text()).groups()
    channels, rounds, width = map(int, sizes)
    config = read_recipe(file, AskedGeneratorRecipe).network.settle(rounds=rounds, channels=channels, text_width=width)
    assert f"{parameters_of(config) / 1e6:,.1f}" == stated


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network: {type: text_transformer}", "is trained on packed sequences; set data.type=packed"),
        ("data: {type: packed}", "data.type is packed, which is for network.type=text_transformer"),
        ("refinement: {shift: 2}", "for network.type=text_transformer"),
        ("refinement: {tokens_power: 0.5}", "for network.type=text_transformer"),
        ("refinement: {shift: wide}", "shift"),
        ("{network: {type: text_transformer}, data: {type: packed, tokens: 0}}", "tokens is 0"),
        ("{network: {type: text_transformer}, data: {type: packed, batch: 3}}", "batch"),
        ("{network: {type: text_transformer}, data: {type: packed}, training: {compile: true}}", "training.compile"),
        ("{network: {type: text_transformer}, data: {type: packed, too_long: cut}}", "too_long"),
    ],
)
def test_recipes_for_text_and_for_classes_are_not_mixed(read, text, words):
    with pytest.raises(RecipeError) as caught:
        read(text)
    assert words in str(caught.value)


# Values


def test_an_empty_file_is_the_defaults(read):
    assert read() == AskedGeneratorRecipe()


def test_overrides_change_their_field_only(read):
    changed = read("data: {batch: 8, validation: 3}", "data.batch=16", "network.prediction=bit")
    assert changed == read("network: {prediction: bit}\ndata: {batch: 16, validation: 3}")


def test_a_dumped_recipe_reads_as_itself(read, tmp_path):
    bits = Bits(
        tokenizer={"name": "toy", "sha256": "3f9c"},
        stride=(4, 16, 16),
        labels=("0", "no", "ant"),
        grids={"1x4x4": 12},
        fps=8,
    )
    network = ClassTransformerConfig(rounds=4, channels=16, classes=3)
    recipe = GeneratorRecipe(network=network, bits=bits)
    file = tmp_path / "own.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert read_own_recipe(file, GeneratorRecipe) == recipe
    asked = read(dump_recipe(recipe))
    assert asked.settle(asked.network.settle(rounds=4, channels=16, classes=3), bits) == recipe


@pytest.mark.parametrize(("ema", "decays"), [("0.9", (0.9,)), ("[0.99, 0.9]", (0.99, 0.9))])
def test_there_is_one_moving_average_or_several(read, ema, decays):
    assert read("", f"optimization.ema={ema}").optimization.decays == decays


def test_the_relative_target_is_for_bits(read):
    assert read("", "network.prediction=bit", "refinement.target=relative").refinement.target == "relative"


def test_the_relative_target_is_refused_for_indices(read):
    with pytest.raises(RecipeError, match=r"refinement\.target is relative, which is for network\.prediction=bit only"):
        read("", "network.prediction=ind", "refinement.target=relative")


def test_no_classes_at_all_can_be_asked_for(read):
    assert read("", "network.classes=0").network.classes == 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("kind=tokenizer", "kind is 'tokenizer': expected generator"),
        ("data.batches=4", "there is no field data.batches; did you mean data.batch?"),
        ("data.tokens=4", "there is no field data.tokens unless data.type=packed; add that, or leave it out"),
        ("data={type: packed, batch: 4}", "there is no field data.batch; expected one of type, tokens, sequences"),
        ("network.attention=full", "there is no field network.attention unless network.type=text_transformer; add"),
        ("data.batch=four", "data.batch is 'four'"),
        ("data.batch=0", "data: batch is 0"),
        ("data.validation=-1", "validation -1"),
        ("data.buffer=0", "data: buffer is 0.0"),
        ("data.buffer=.nan", "data: buffer is nan"),
        ("data.buffer=.inf", "data: buffer is inf"),
        ("network.prediction=token", "network.prediction is 'token'"),
        ("network.depth=0", "network: depth is 0"),
        ("network.width=100", "network: width is 100, expected a multiple of 4 times heads=12"),
        ("network.in_context_start=12", "network: in_context_start is 12, expected 0 to 11"),
        ("network.in_context_tokens=-1", "in_context_tokens is -1, expected 0 to"),
        ("network.rounds=9", "network: rounds is 9, expected 1 to 8"),
        ("network.channels=0", "network: channels is 0"),
        ("network.classes=-1", "network: classes is -1, expected 0 to"),
        ("refinement.ratio=cosine", "refinement.ratio is 'cosine'"),
        ("refinement.target=absolut", "refinement.target is 'absolut'"),
        ("refinement.mean=.nan", "refinement: mean is nan"),
        ("refinement.deviation=0", "deviation 0.0"),
        ("refinement.deviation=.inf", "deviation inf"),
        ("refinement.condition_dropout=1.5", "refinement: condition_dropout is 1.5, expected 0 to 1"),
        ("refinement.condition_dropout=.nan", "refinement: condition_dropout is nan"),
        ("optimization.learning_rate=0", "optimization: learning_rate is 0.0"),
        ("optimization.schedule=step", "optimization.schedule is 'step'"),
        ("optimization.ema=[]", "optimization: ema is ()"),
        ("optimization.ema=[0.9, 1]", "optimization: ema is (0.9, 1.0)"),
        ("optimization.betas=[0.9, 1]", "optimization: betas is [0.9, 1.0]"),
        ("optimization.weight_decay=-1", "optimization: weight_decay is -1.0"),
        ("optimization.learning_rate=.inf", "learning_rate is inf, expected a finite number"),
        ("optimization.warmup_steps=-1", "optimization: warmup_steps is -1"),
        ("training.seed=-1", "training: seed is -1"),
        ("training.seed=9223372036854775808", "training: seed is 9223372036854775808"),
        ("bits.stride=[0, 16, 16]", "bits: stride is [0, 16, 16], expected three numbers from 1"),
        ("bits.grids={1x0x2: 4}", "bits: grids is {'1x0x2': 4}"),
        ("bits.grids={1x1x2: -4}", "bits: grids is {'1x1x2': -4}"),
        ("bits.fps=-1", "bits: fps is -1.0"),
        ("training.steps=0", "training: steps is 0"),
        ("preview.steps=0", "preview: classes, per_class and steps are counts"),
        ("preview.temperature=0", "preview: temperature is 0.0"),
        ("preview.guidance=.inf", "guidance finite"),
    ],
)
def test_a_wrong_value_is_one_sentence_that_names_the_field(read, override, words):
    settled = {"tokenizer": {}, "stride": [1, 16, 16], "labels": [], "grids": {"1x1x1": 1}}
    with pytest.raises(RecipeError) as caught:
        read(json.dumps({"bits": settled}), override)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_for_a_tokenizer_is_refused():
    tokenizers = sorted(SHIPPED[0].parent.glob("tokenizer-*.yaml"))
    with pytest.raises(RecipeError):
        read_recipe(tokenizers[0], AskedGeneratorRecipe)


def test_the_recipe_of_an_imported_run_is_no_recipe_to_train_by(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(AskedGeneratorRecipe(imported={"file": "released.pth"})))
    with pytest.raises(RecipeError, match="imported run, which has no training to repeat"):
        read_training_recipe(file, AskedGeneratorRecipe, [])


# The type of the network


def test_the_type_of_the_network_is_the_only_one_where_it_is_left_out(read):
    assert read("network: {depth: 6}").network.type == "class_transformer"
    assert read("network: {type: class_transformer, depth: 6}") == read("network: {depth: 6}")


def test_an_unknown_type_is_refused_with_those_there_are(read):
    with pytest.raises(RecipeError, match=r"network\.type is 'mamba': expected class_transformer or text_transformer$"):
        read("network: {type: mamba, states: 4}")


@pytest.mark.parametrize("wrong", ["[class_transformer]", "{}", "null", "3"])
def test_a_type_that_is_no_name_is_refused(read, wrong):
    with pytest.raises(RecipeError, match=r"network\.type is .*: expected class_transformer or text_transformer$"):
        read(f"network: {{type: {wrong}}}")


@pytest.mark.parametrize("wrong", ["3", "[1]", "text"])
def test_a_network_that_is_no_section_is_refused(read, wrong):
    with pytest.raises(RecipeError, match=r"network is .*: expected a section with type, prediction, depth"):
        read(f"network: {wrong}")


def test_the_recipe_of_a_run_names_the_type():
    config = ClassTransformerConfig(rounds=4, channels=16, classes=3)
    recipe = GeneratorRecipe(network=config, bits=Bits(tokenizer={}, stride=(1, 8, 8), labels=(), grids={"1x1x1": 1}))
    assert "network:\n  type: class_transformer\n" in dump_recipe(recipe)


# Fields that had other names

RENAMED = [
    ("refinement", "label_drop", "condition_dropout", 0.25),
    ("optimization", "accumulate", "gradient_accumulation", 2),
    ("training", "recompute", "activation_checkpointing", True),
]


@pytest.mark.parametrize(("section", "before", "now", "value"), RENAMED)
def test_a_field_under_its_old_name_is_refused_with_the_new_one(read, section, before, now, value):
    expected = rf"{section}\.{before} is called {section}\.{now} now$"
    with pytest.raises(RecipeError, match=expected):
        read(json.dumps({section: {before: value}}))
    with pytest.raises(RecipeError, match=rf"the override '{section}.{before}=.*{expected}"):
        read("", f"{section}.{before}={json.dumps(value)}")


@pytest.mark.parametrize(("section", "before", "now", "value"), RENAMED)
def test_a_run_of_earlier_versions_is_read_by_the_old_names(tmp_path, section, before, now, value):
    config = ClassTransformerConfig(rounds=4, channels=16, classes=3)
    recipe = GeneratorRecipe(network=config, bits=Bits(tokenizer={}, stride=(1, 8, 8), labels=(), grids={"1x1x1": 1}))
    fields = yaml.safe_load(dump_recipe(recipe))
    del fields["network"]["type"], fields[section][now]
    fields[section][before] = value
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    read = read_own_recipe(tmp_path / "recipe.yaml", GeneratorRecipe)
    assert getattr(getattr(read, section), now) == value
    assert read.network == config
