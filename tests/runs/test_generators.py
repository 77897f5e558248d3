"""Generators as run directories: imported from the released layout, loaded, described, told from tokenizers."""

import json
import os
import re
from argparse import Namespace

import pytest
import torch
import yaml

from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.transformer import position_embedding
from grncli.runs.checkpoint import write_checkpoint
from grncli.runs.describing import describe
from grncli.runs.generator_recipe import Bits, GeneratorRecipe
from grncli.runs.generators import load_generator, open_generator
from grncli.runs.importing import import_released
from grncli.runs.recipe import dump_recipe
from grncli.runs.rundir import recipe_kind
from grncli.runs.tokenizers import load_tokenizer
from grncli.runtime.errors import CheckpointError, GrnError, UsageError
from grncli.runtime.tensor_files import read_released, sha256_of

CONFIG = ClassTransformerConfig(
    prediction="bit",
    depth=2,
    width=16,
    heads=2,
    bottleneck=4,
    in_context_tokens=3,
    in_context_start=1,
    rounds=2,
    channels=3,
    classes=5,
)
ARGUMENTS = Namespace(method="GRN_bit", hbq_round=2, img_size=48)
START = ["in_context_start=1"]
RELEASED_NAMES = [
    ("embedding.table", "x_embedder.proj1.weight"),
    ("embedding.expand", "x_embedder.proj2"),
    ("ratio.first", "t_embedder.mlp.0"),
    ("ratio.second", "t_embedder.mlp.2"),
    (r"^classes$", "y_embedder.embedding_table.weight"),
    (r"^context$", "in_context_posemb"),
    (r"attention\.query_norm", "attn.q_norm"),
    (r"attention\.key_norm", "attn.k_norm"),
    (r"attention\.qkv", "attn.qkv"),
    (r"attention\.projection", "attn.proj"),
    (r"mlp\.gate_and_up", "mlp.w12"),
    (r"mlp\.down", "mlp.w3"),
    (r"\.modulation", ".adaLN_modulation.1"),
    (r"head\.norm", "final_layer.norm_final"),
    (r"^head\.", "final_layer."),
    (r"gain$", "weight"),
]


def generator(filled, seed=0, **config):
    return (
        filled(ClassTransformer(ClassTransformerConfig(**{**vars(CONFIG), **config})), seed)
        .eval()
        .requires_grad_(False)
    )


def released_layout(network, side=3):
    """The weights of a generator as a released file holds them."""
    released = {"net.pos_embed": position_embedding((1, side, side), network.config.width)[None]}
    for name, tensor in network.state_dict().items():
        if name == "embedding.table":
            tensor = tensor.t()[..., None, None]
        elif name == "embedding.expand.weight":
            tensor = tensor[..., None, None]
        elif name == "context":
            tensor = tensor[None]
        for ours, theirs in RELEASED_NAMES:
            name = re.sub(ours, theirs, name)
        released[f"net.{name}"] = tensor.clone()
    return released


def message_of(call, *arguments, error=CheckpointError, **named):
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(weights, network):
    return all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


@pytest.fixture(scope="module")
def network(filled):
    return generator(filled)


@pytest.fixture(scope="module")
def content(filled, network):
    """What a released file holds."""
    return {
        "model": released_layout(generator(filled, 2)),
        "model_ema1": released_layout(network),
        "model_ema2": released_layout(generator(filled, 1)),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 599,
        "args": ARGUMENTS,
    }


@pytest.fixture
def save(tmp_path):
    def save_as(content, name="other.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save_as


@pytest.fixture(scope="module")
def released(content, tmp_path_factory):
    file = tmp_path_factory.mktemp("released") / "generator.pth"
    torch.save(content, file)
    return file


@pytest.fixture
def run(released, tmp_path):
    import_released(released, tmp_path / "run", settings=START)
    return tmp_path / "run"


@pytest.fixture
def trained(network, filled, tmp_path):
    """A run as training leaves it: two moving averages, and the weights themselves."""
    averages = {"ema": network, "ema2": generator(filled, 1), "weights": generator(filled, 2)}
    tensors = {name: average.state_dict() for name, average in averages.items()}
    bits = Bits(tokenizer={"name": "tok"}, stride=(4, 16, 16), labels=tuple("abcde"), grids={"1x3x3": 7})
    write_checkpoint(tmp_path / "trained", 1, tensors, {"step": 1}, {})
    recipe = dump_recipe(GeneratorRecipe(network=CONFIG, bits=bits))
    (tmp_path / "trained" / "recipe.yaml").write_text(recipe)
    return tmp_path / "trained"


@pytest.fixture
def tokenizer_file(make_tokenizer, in_released_layout, save):
    return save({"ema": in_released_layout(make_tokenizer())}, "tokenizer.ckpt")


@pytest.fixture
def tokenizer_run(tokenizer_file, tmp_path):
    import_released(tokenizer_file, tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


# Import


def test_an_imported_generator_has_the_weights_of_the_file(run, network):
    assert same(load_generator(run).state_dict(), network)


def test_an_imported_generator_has_the_sizes_of_the_file(run):
    assert load_generator(run).config == CONFIG


@pytest.mark.parametrize(("weights", "seed"), [(None, 0), ("ema1", 0), ("ema2", 1), ("model", 2)])
def test_weights_can_be_asked_for(released, tmp_path, filled, weights, seed):
    import_released(released, tmp_path / "run", weights=weights, settings=START)
    assert same(load_generator(tmp_path / "run").state_dict(), generator(filled, seed))


@pytest.mark.parametrize(
    ("missing", "taken"), [(["model_ema1"], "ema2"), (["model_ema1", "model_ema2"], "model"), (["model"], "ema1")]
)
def test_the_best_weights_that_are_there_are_taken(content, save, tmp_path, missing, taken):
    file = save({name: value for name, value in content.items() if name not in missing})
    described = import_released(file, tmp_path / "run", settings=START)
    assert described["recipe"]["imported"]["weights"] == taken


def test_weights_that_are_not_there_are_refused(content, save, tmp_path):
    file = save({"model": content["model"], "args": ARGUMENTS})
    message = message_of(import_released, file, tmp_path / "run", weights="ema1", settings=START)
    assert "has no weights under 'ema1', expected one of ['model']" in message


def test_the_recipe_tells_where_the_weights_came_from(run, released):
    imported = yaml.safe_load((run / "recipe.yaml").read_text())["imported"]
    assert imported == {"file": "generator.pth", "weights": "ema1", "sha256": sha256_of(released)}


def test_prediction_and_rounds_are_those_of_the_arguments(filled, save, tmp_path):
    network = generator(filled, prediction="ind", rounds=3)
    arguments = Namespace(method="GRN_ind", hbq_round=3, img_size=48)
    file = save({"model_ema1": released_layout(network), "args": arguments})
    import_released(file, tmp_path / "run", settings=START)
    assert load_generator(tmp_path / "run").config == network.config


def test_a_file_without_arguments_can_be_told_them(content, save, tmp_path):
    file = save({"model_ema1": content["model_ema1"]})
    import_released(file, tmp_path / "run", settings=[*START, "prediction=bit", "rounds=2"])
    assert load_generator(tmp_path / "run").config == CONFIG


@pytest.mark.parametrize("field", ["prediction", "rounds"])
def test_what_a_file_without_arguments_does_not_tell_is_asked_for(content, save, tmp_path, field):
    told = [setting for setting in ("prediction=bit", "rounds=2") if not setting.startswith(field)]
    file = save({"model_ema1": content["model_ema1"]})
    message = message_of(import_released, file, tmp_path / "run", settings=START + told, error=GrnError)
    assert f"--set {field}=" in message


@pytest.mark.parametrize(("depth", "start"), [(12, 4), (24, 8), (32, 10), (40, 10)])
def test_released_depths_tell_where_the_context_joins(filled, save, tmp_path, depth, start):
    network = generator(filled, depth=depth, width=4, heads=1)
    file = save({"model_ema1": released_layout(network), "args": ARGUMENTS})
    described = import_released(file, tmp_path / "run")
    assert described["recipe"]["network"]["in_context_start"] == start


def test_another_depth_asks_where_the_context_joins(released, tmp_path):
    assert message_of(import_released, released, tmp_path / "run", error=UsageError) == (
        f"{released}: has 2 blocks, which no released generator has, so the block before which its in-context tokens "
        "join is unknown; give it with --set in_context_start=N, counted from 0"
    )


@pytest.mark.parametrize("field", ["in_context_start", "network.in_context_start"])
def test_the_start_of_the_context_can_be_told(released, tmp_path, field):
    import_released(released, tmp_path / "run", settings=[f"{field}=0"])
    assert load_generator(tmp_path / "run").config.in_context_start == 0


@pytest.mark.parametrize("setting", ["width=8", "in_context_start", "classes=5", "in_context_start=[", "=3"])
def test_other_settings_are_refused(released, tmp_path, setting):
    message = message_of(import_released, released, tmp_path / "run", settings=[*START, setting], error=UsageError)
    assert f"--set {setting}: " in message


@pytest.mark.parametrize(
    "setting",
    ["in_context_start=2", "in_context_start=-1", "in_context_start=x", "in_context_start=0.5", "rounds=0", "rounds=x"],
)
def test_impossible_settings_are_refused_by_name(released, tmp_path, setting):
    message = message_of(import_released, released, tmp_path / "run", settings=[*START, setting], error=GrnError)
    assert f"{setting.partition('=')[0]} is " in message


def test_another_method_is_refused(content, save, tmp_path):
    file = save({**content, "args": Namespace(method="MAR")})
    message = message_of(import_released, file, tmp_path / "run", settings=START)
    assert "was trained by the method 'MAR', expected GRN_ind or GRN_bit" in message


def test_a_run_is_not_written_over(run, released):
    assert "is already a run directory" in message_of(import_released, released, run, settings=START)


def test_a_run_is_replaced_when_asked(run, released, filled):
    import_released(released, run, weights="ema2", settings=START, overwrite=True)
    assert same(load_generator(run).state_dict(), generator(filled, 1))


# Wrong files


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


WRONG = {
    "no entry": (lambda good: {"model_ema1": 5}, "expected the weights of a class-conditional generator"),
    "empty entry": (lambda good: {"model_ema1": {}}, "give the weights of a released class-conditional generator"),
    "more than tensors": (lambda good: {"model_ema1": {**good, "step": 5}}, "'model_ema1' holds more than tensors"),
    "unknown name": (lambda good: {"model_ema1": {**good, "net.extra": torch.zeros(1)}}, "extra'"),
    "missing weight": (lambda good: {"model_ema1": without(good, "net.final_layer.linear.bias")}, "head.linear.bias"),
    "missing size": (lambda good: {"model_ema1": without(good, "net.in_context_posemb")}, "have no 'context'"),
    "missing positions": (lambda good: {"model_ema1": without(good, "net.pos_embed")}, "net.pos_embed"),
    "other shape": (
        lambda good: {"model_ema1": {**good, "net.final_layer.linear.weight": torch.zeros(5, 16)}},
        "do not fit",
    ),
    "scalar": (lambda good: {"model_ema1": {**good, "net.x_embedder.proj1.weight": torch.zeros(())}}, "expected"),
    "names that are no text": (lambda good: {"model_ema1": {5: torch.zeros(1)}}, "give the weights"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_gets_one_sentence(content, save, tmp_path, case):
    make, expected = WRONG[case]
    file = save({**make(content["model_ema1"]), "args": ARGUMENTS})
    assert expected in message_of(import_released, file, tmp_path / "run", settings=START)


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_leaves_no_run(content, save, tmp_path, case):
    file = save({**WRONG[case][0](content["model_ema1"]), "args": ARGUMENTS})
    message_of(import_released, file, tmp_path / "run", settings=START)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


class Hostile:
    """Unpickled by Python, this makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


class Harmless:
    pass


def test_arguments_of_another_class_are_refused(content, save, tmp_path):
    file = save({**content, "args": Harmless()})
    assert "Harmless; refused" in message_of(import_released, file, tmp_path / "run", settings=START)


@pytest.mark.parametrize("wrap", [lambda hostile: hostile, lambda hostile: Namespace(method=hostile)])
def test_hostile_arguments_do_not_run_their_code(content, save, tmp_path, wrap):
    file = save({**content, "args": wrap(Hostile(tmp_path / "harmed"))})
    message_of(import_released, file, tmp_path / "run", settings=START)
    assert not (tmp_path / "harmed").exists()


# Telling files apart


def test_a_generator_is_known_by_its_file(released, tmp_path):
    assert import_released(released, tmp_path / "run", settings=START)["kind"] == "generator"


@pytest.mark.parametrize("entry", ["model", "model_ema1", "model_ema2"])
def test_a_generator_is_known_by_any_of_its_entries(content, save, tmp_path, entry):
    file = save({entry: content[entry], "args": ARGUMENTS})
    assert import_released(file, tmp_path / "run", settings=START)["kind"] == "generator"


def test_a_tokenizer_is_known_by_its_file(tokenizer_file, tmp_path):
    assert import_released(tokenizer_file, tmp_path / "run")["kind"] == "tokenizer"


def test_importing_by_the_file_gives_what_importing_by_the_kind_does(released, run, tmp_path):
    described = import_released(released, tmp_path / "again", settings=START)
    assert described == {**describe(run), "name": "again"}


def test_a_file_of_neither_kind_is_refused(save, tmp_path):
    message = message_of(import_released, save({"weights": {}}), tmp_path / "run")
    assert "has the entries ['weights'], expected" in message


def test_a_taken_directory_is_refused_before_the_file_is_read(run, tmp_path):
    assert "is already a run directory" in message_of(import_released, tmp_path / "none.pth", run)


# Loading


def test_a_loaded_generator_is_ready_for_inference(run):
    loaded = load_generator(run)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(("weights", "seed"), [("ema", 0), ("ema2", 1), ("weights", 2)])
def test_each_average_of_a_trained_run_can_be_loaded(trained, filled, weights, seed):
    assert same(load_generator(trained, weights=weights).state_dict(), generator(filled, seed))


def test_a_missing_average_is_told_with_those_that_are_there(run):
    message = message_of(load_generator, run, weights="ema2", error=UsageError)
    assert message.endswith("has no weights called ema2, expected one of ema")


def test_a_missing_average_of_a_trained_run_is_told_with_those_that_are_there(trained):
    message = message_of(load_generator, trained, weights="ema3", error=UsageError)
    assert message.endswith("has no weights called ema3, expected one of ema, ema2, weights")


@pytest.mark.parametrize("weights", ["ema", "ema2"])
def test_the_identity_is_that_of_the_weights_that_were_read(trained, weights):
    file = trained / "checkpoints" / "step-00000001" / f"{weights}.safetensors"
    assert open_generator(trained, weights).identity == {"name": "trained", "sha256": sha256_of(file)}


def test_sizes_edited_since_are_refused(run):
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("in_context_start: 1", "in_context_start: 0"))
    assert "was made with network.in_context_start=1, and recipe.yaml says 0" in message_of(load_generator, run)


def test_the_run_of_a_tokenizer_is_refused(tokenizer_run):
    expected = f"{tokenizer_run}: is the run of a tokenizer, expected that of a generator"
    assert message_of(load_generator, tokenizer_run) == expected


def test_the_run_of_a_generator_is_no_tokenizer(run):
    assert message_of(load_tokenizer, run) == f"{run}: is the run of a generator, expected that of a tokenizer"


def test_a_run_knows_its_kind(run, tokenizer_run):
    assert (recipe_kind(run), recipe_kind(tokenizer_run)) == ("generator", "tokenizer")


def test_a_run_of_an_unknown_kind_is_refused_with_those_there_are(trained):
    recipe = trained / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("kind: generator", "kind: teapot"))
    refusal = f"{trained}: is the run of a teapot, expected that of a"
    assert message_of(describe, trained) == f"{refusal} tokenizer or a generator"
    assert message_of(load_generator, trained) == f"{refusal} generator"


def test_what_is_no_run_is_refused(tmp_path):
    assert "expected a run directory" in message_of(load_generator, tmp_path / "none")


# Checking and describing


def test_a_good_run_has_no_problems(run):
    assert describe(run, verify=True)["problems"] == []


def test_a_weight_that_is_no_number_is_a_problem(run, network):
    broken = {**network.state_dict(), "context": torch.full((3, 16), float("nan"))}
    write_checkpoint(run, 1, {"ema": broken}, {"step": 1}, {})
    (problem,) = describe(run, verify=True)["problems"]
    assert "context has values that are no finite numbers" in problem


def test_the_description_tells_what_was_imported(run, network):
    described = describe(run)
    recipe = described.pop("recipe")
    assert described == {
        "kind": "generator",
        "name": "run",
        "parameters": sum(p.numel() for p in network.parameters()),
        "checkpoint": "step-00000000",
        "step": 0,
        "complete": True,
        "sha256": sha256_of(run / "checkpoints" / "step-00000000" / "ema.safetensors"),
        "prediction": "bit",
        "rounds": 2,
        "channels": 3,
        "classes": 5,
        "stride": [4, 16, 16],
        "grids": {"1x3x3": 0},
        "tokenizer": {},
    }
    assert set(recipe) == {"kind", "network", "bits", "imported"}


def test_the_description_tells_what_was_trained_on(trained):
    described = describe(trained)
    found = {name: described[name] for name in ("step", "complete", "grids", "tokenizer")}
    assert found == {"step": 1, "complete": False, "grids": {"1x3x3": 7}, "tokenizer": {"name": "tok"}}


def test_the_description_can_be_written_as_json(run):
    assert json.loads(json.dumps(describe(run)))["classes"] == 5


def test_a_recipe_that_lost_its_bits_is_told(trained):
    recipe = yaml.safe_load((trained / "recipe.yaml").read_text())
    (trained / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "bits": None}))
    assert "bits" in message_of(describe, trained, error=GrnError)


# With the release's checkpoints


@pytest.mark.parametrize(("kind", "elements"), [("ind", 4), ("bit", 16)])
def test_the_released_checkpoints_are_recognized(release_fixtures, tmp_path, kind, elements):
    import_released(release_fixtures / f"c2i_{kind}.pth", tmp_path / "run", settings=START)
    config = load_generator(tmp_path / "run").config
    found = (config.prediction, config.codec.token_channels, config.rounds, config.classes, config.depth, config.heads)
    assert found == (kind, elements, 4, 10, 3, 2)


def test_the_released_tokenizer_goes_to_its_own_importer(release_fixtures, tmp_path):
    assert import_released(release_fixtures / "tokenizer.ckpt", tmp_path / "run")["kind"] == "tokenizer"


def test_our_names_go_back_to_the_released_ones(release_fixtures, tmp_path):
    import_released(release_fixtures / "c2i_ind.pth", tmp_path / "run", settings=START)
    ours = released_layout(load_generator(tmp_path / "run"), side=4)
    theirs = read_released(release_fixtures / "c2i_ind.pth")["model_ema1"]
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
