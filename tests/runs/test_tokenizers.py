"""Tokenizers as run directories: imported from the released layout, loaded, told apart, never written over."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from grncli.runs import checkpoint, importing, recipe, tokenizers
from grncli.runs.checkpoint import find_checkpoint, write_checkpoint
from grncli.runs.describing import describe
from grncli.runs.importing import import_released
from grncli.runs.recipe import dump_recipe
from grncli.runs.rundir import locked_run
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runs.tokenizers import load_tokenizer, open_tokenizer
from grncli.runtime.errors import CheckpointError, GrnError, LockError, RecipeError, UsageError
from grncli.runtime.tensor_files import sha256_of


@pytest.fixture(scope="module")
def network(make_tokenizer):
    return make_tokenizer(seed=0).requires_grad_(False)


@pytest.fixture(scope="module")
def released(network, make_tokenizer, in_released_layout, tmp_path_factory):
    """A file in the released layout: the good weights under ``ema``, others under ``vae``."""
    file = tmp_path_factory.mktemp("released") / "tokenizer.ckpt"
    torch.save({"ema": in_released_layout(network), "vae": in_released_layout(make_tokenizer(seed=1))}, file)
    return file


@pytest.fixture
def run(released, tmp_path):
    import_released(released, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def save(tmp_path):
    def save_as(content):
        torch.save(content, tmp_path / "other.ckpt")
        return tmp_path / "other.ckpt"

    return save_as


def message_of(call, *arguments, error=CheckpointError, **named):
    with pytest.raises(error) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Import


def test_an_imported_tokenizer_computes_what_the_file_holds(run, network, drawn):
    x = drawn((1, 3, 5, 32, 16), 0)
    assert torch.equal(load_tokenizer(run).encode(x), network.encode(x))


def test_an_imported_tokenizer_gives_the_golden_features(run, golden, drawn):
    """The golden numbers agree with the release's, see models/test_tokenizer.py."""
    feature = load_tokenizer(run).encode(drawn((2, 3, 1, 32, 48), 1))
    torch.testing.assert_close(feature, golden["image_feature"], atol=1e-4, rtol=0)


def test_import_prefers_ema(run, network):
    weights = load_tokenizer(run).state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in network.state_dict().items())


def test_vae_weights_can_be_asked_for(released, tmp_path, make_tokenizer):
    import_released(released, tmp_path / "run", weights="vae")
    weights = load_tokenizer(tmp_path / "run").state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in make_tokenizer(seed=1).state_dict().items())


def test_vae_weights_are_taken_where_there_is_no_ema(save, tmp_path, network, in_released_layout):
    described = import_released(save({"vae": in_released_layout(network)}), tmp_path / "run")
    assert described["recipe"]["imported"]["weights"] == "vae"


def test_the_recipe_tells_where_the_weights_came_from(run, released):
    imported = yaml.safe_load((run / "recipe.yaml").read_text())["imported"]
    assert imported == {"file": "tokenizer.ckpt", "weights": "ema", "sha256": sha256_of(released)}


def test_rounds_are_four_unless_told(run):
    assert load_tokenizer(run).rounds == 4


def test_rounds_can_be_told(released, tmp_path):
    import_released(released, tmp_path / "run", settings=["rounds=6"])
    assert load_tokenizer(tmp_path / "run").rounds == 6


@pytest.mark.parametrize("field", ["attention", "network.attention"])
def test_attention_can_be_switched_off(released, tmp_path, field):
    import_released(released, tmp_path / "run", settings=[f"{field}=false"])
    assert load_tokenizer(tmp_path / "run").encoder.middle.attention is None


@pytest.mark.parametrize("setting", ["channels=8", "rounds", "attention", "rounds=[", "=3"])
def test_other_settings_are_refused(released, tmp_path, setting):
    message = message_of(import_released, released, tmp_path / "run", settings=[setting], error=UsageError)
    assert f"--set {setting}: " in message


def test_impossible_rounds_are_refused(released, tmp_path):
    message = message_of(import_released, released, tmp_path / "run", settings=["rounds=9"], error=RecipeError)
    assert "rounds is 9, expected 1 to 8" in message


def test_the_description_tells_what_was_imported(run):
    described = describe(run)
    found = {key: described[key] for key in ("kind", "name", "rounds", "channels", "stride", "step", "complete")}
    assert found == {
        "kind": "tokenizer",
        "name": "run",
        "rounds": 4,
        "channels": 4,
        "stride": [4, 16, 16],
        "step": 0,
        "complete": True,
    }


def test_the_description_can_be_written_as_json(run):
    assert json.loads(json.dumps(describe(run)))["channels"] == 4


def test_the_description_counts_the_parameters(run, network):
    assert describe(run)["parameters"] == sum(p.numel() for p in network.parameters())


# Wrong files


def wrong(released_weights):
    """Name, content of the file, and what the message must say."""
    first = next(iter(released_weights))
    return {
        "no entry": ({"vqgan": released_weights}, "has the entries ['vqgan'], expected the weights of a tokenizer"),
        "entry of another kind": ({"ema": 5}, "expected the weights of a tokenizer under 'ema' or 'vae'"),
        "empty entry": ({"ema": {}}, "the weights have no"),
        "more than tensors": ({"ema": {**released_weights, "step": 5}}, "'ema' holds more than tensors"),
        "unknown name": ({"ema": {**released_weights, "head.weight": torch.zeros(1)}}, "'head.weight'"),
        "missing weight": (
            {"ema": {k: v for k, v in released_weights.items() if k != "conv1.bias"}},
            "to_moments.bias",
        ),
        "missing size": ({"ema": {k: v for k, v in released_weights.items() if k != first}}, "the weights have no"),
        "other shape": ({"ema": {**released_weights, "conv2.weight": torch.zeros(4, 5, 1, 1, 1)}}, "do not fit"),
        "too few dimensions": (
            {"ema": {**released_weights, "decoder.head.2.weight": torch.zeros(3)}},
            "give the weights",
        ),
        "scalar": ({"ema": {**released_weights, "conv2.weight": torch.zeros(())}}, "give the weights"),
        "no width": ({"ema": {**released_weights, first: torch.zeros(0, 12, 3, 3, 3)}}, "give the weights"),
        "names that are no text": ({"ema": {5: torch.zeros(1)}}, "give the weights"),
    }


@pytest.mark.parametrize("case", wrong({"": 0}))
def test_a_wrong_file_gets_one_sentence(save, tmp_path, network, in_released_layout, case):
    content, expected = wrong(in_released_layout(network))[case]
    assert expected in message_of(import_released, save(content), tmp_path / "run")


@pytest.mark.parametrize("case", wrong({"": 0}))
def test_a_wrong_file_leaves_no_run(save, tmp_path, network, in_released_layout, case):
    file = save(wrong(in_released_layout(network))[case][0])
    message_of(import_released, file, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["other.ckpt"]


def test_weights_that_are_not_there_are_refused(save, tmp_path, network, in_released_layout):
    file = save({"ema": in_released_layout(network)})
    message = message_of(import_released, file, tmp_path / "run", weights="vae")
    assert "has no weights under 'vae', expected one of ['ema']" in message


def test_a_missing_file_is_told(tmp_path):
    assert "none.ckpt: is not a file" in message_of(import_released, tmp_path / "none.ckpt", tmp_path / "run")


# Writing over


def test_a_run_is_not_written_over(run, released):
    assert "is already a run directory" in message_of(import_released, released, run)


class Killed(BaseException):
    """What no handler of ours catches, as little as it catches a kill."""


def die(*_, **__):
    raise Killed


def full(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_import_leaves_what_was_there(run, released, tmp_path, monkeypatch, overwrite):
    target = run if overwrite else tmp_path / "fresh"
    before, entries = open_tokenizer(run).identity, set(tmp_path.iterdir())
    monkeypatch.setattr(checkpoint, "write_tensors", full)
    message = message_of(import_released, released, target, weights="vae", overwrite=overwrite)
    assert "cannot be written (" in message
    assert set(tmp_path.iterdir()) == entries
    assert open_tokenizer(run).identity == before


@pytest.mark.parametrize("moment", ["clear_run", "refuse_links", "write_record", "take_checkpoint", "mark_complete"])
def test_a_killed_import_can_be_repeated(run, released, monkeypatch, moment):
    with monkeypatch.context() as patched:
        patched.setattr(importing, moment, die)
        patched.setattr(importing, "remove", lambda path: None)  # as a kill, which tidies nothing
        with pytest.raises(Killed):
            import_released(released, run, weights="vae", overwrite=True)
    import_released(released, run, weights="vae", overwrite=True)
    assert sorted(path.name for path in run.iterdir()) == [
        *(".lock", "COMPLETE", "checkpoints", "recipe.yaml", "run.json")
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step-00000000"]
    assert load_tokenizer(run).rounds == 4


def test_a_run_that_is_being_written_is_not_replaced(run, released):
    with locked_run(run), pytest.raises(LockError, match="is being trained by this process"):
        import_released(released, run, weights="vae", overwrite=True)


def test_a_run_is_replaced_when_asked(run, released):
    before = open_tokenizer(run).identity
    import_released(released, run, weights="vae", overwrite=True)
    assert open_tokenizer(run).identity != before


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_directory_is_never_written_over(released, tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "dear.jpg").touch()
    message = message_of(import_released, released, tmp_path / "photos", overwrite=overwrite)
    assert "exists and is no run directory" in message
    assert (tmp_path / "photos" / "dear.jpg").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_written_over(released, tmp_path, overwrite):
    (tmp_path / "notes").write_text("dear")
    message_of(import_released, released, tmp_path / "notes", overwrite=overwrite)
    assert (tmp_path / "notes").read_text() == "dear"


def test_an_empty_directory_may_become_a_run(released, tmp_path):
    (tmp_path / "run").mkdir()
    assert import_released(released, tmp_path / "run")["name"] == "run"


def test_missing_parents_are_made(released, tmp_path):
    assert import_released(released, tmp_path / "a" / "b" / "run")["name"] == "run"


def test_a_failed_replacement_leaves_the_old_run(run, released, monkeypatch):
    before = open_tokenizer(run).identity

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    message_of(import_released, released, run, weights="vae", overwrite=True)
    assert open_tokenizer(run).identity == before


# Loading


def write_run(folder, network, rounds=4):
    write_checkpoint(folder, 1, {"ema": network.state_dict()}, {"step": 1}, {})
    (folder / "recipe.yaml").write_text(dump_recipe(TokenizerRecipe(network=network.config, rounds=rounds)))
    return folder


@pytest.mark.parametrize("rounds", [6, None])
def test_a_tokenizer_loads_as_it_was_written(tmp_path, make_tokenizer, drawn, rounds):
    network = make_tokenizer(rounds=rounds, halve_time=(2,), attention=False)
    loaded = load_tokenizer(write_run(tmp_path / "run", network, rounds))
    x = drawn((1, 3, 3, 32, 16), 0)
    assert (loaded.rounds, loaded.config) == (rounds, network.config)
    assert torch.equal(loaded(x), network(x))


def test_a_loaded_tokenizer_is_ready_for_inference(run):
    loaded = load_tokenizer(run)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_tokenizer_loads_in_inference_mode(run, network, drawn):
    x = drawn((1, 3, 1, 32, 16), 0)
    with torch.inference_mode():
        feature = load_tokenizer(run).encode(x)
    assert torch.equal(feature, network.encode(x))


def test_the_newest_checkpoint_is_loaded(run, make_tokenizer):
    newer = make_tokenizer(seed=5)
    write_checkpoint(run, 7, {"ema": newer.state_dict()}, {"step": 7}, {})
    assert torch.equal(load_tokenizer(run).to_moments.weight, newer.to_moments.weight)


def test_an_older_checkpoint_can_be_named(run, network, make_tokenizer):
    write_checkpoint(run, 7, {"ema": make_tokenizer(seed=5).state_dict()}, {"step": 7}, {})
    loaded = load_tokenizer(run / "checkpoints" / "step-00000000")
    assert torch.equal(loaded.to_moments.weight, network.to_moments.weight)


def test_weights_of_another_network_are_refused(run, make_tokenizer):
    write_checkpoint(run, 7, {"ema": make_tokenizer(channels=6).state_dict()}, {"step": 7}, {})
    assert "the weights do not fit the network of the recipe" in message_of(load_tokenizer, run)


def test_a_missing_weight_is_refused(run):
    file = find_checkpoint(run) / "ema.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "to_moments.bias"}, file)
    assert "to_moments.bias" in message_of(load_tokenizer, run)


@pytest.mark.parametrize("function", [load_tokenizer, open_tokenizer])
def test_what_is_no_run_is_refused(tmp_path, function):
    assert "expected a run directory" in message_of(function, tmp_path / "none", error=GrnError)


# Identity


def test_identity_names_the_run_and_the_weights(run):
    file = find_checkpoint(run) / "ema.safetensors"
    assert open_tokenizer(run).identity == {"name": "run", "sha256": sha256_of(file)}


def test_identity_is_the_same_on_every_import(run, released, tmp_path):
    import_released(released, tmp_path / "again")
    assert open_tokenizer(tmp_path / "again").identity["sha256"] == open_tokenizer(run).identity["sha256"]


def test_identity_changes_with_the_weights(run, make_tokenizer):
    before = open_tokenizer(run).identity["sha256"]
    changed = load_tokenizer(run)
    changed.to_moments.bias[0] += 1e-6
    write_checkpoint(run, 1, {"ema": changed.state_dict()}, {"step": 1}, {})
    assert open_tokenizer(run).identity["sha256"] != before


# With the release's checkpoint


@pytest.fixture(scope="module")
def outputs(release_fixtures):
    return load_file(release_fixtures / "tokenizer_io.safetensors")


@pytest.mark.parametrize("media", ["image", "video"])
def test_the_released_checkpoint_gives_the_released_features(release_fixtures, outputs, tmp_path, media):
    import_released(release_fixtures / "tokenizer.ckpt", tmp_path / "run")
    feature = load_tokenizer(tmp_path / "run").encode(outputs[media])
    torch.testing.assert_close(feature, outputs[f"{media}_feature"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("media", ["image", "video"])
def test_the_released_checkpoint_gives_the_released_pixels(release_fixtures, outputs, tmp_path, media):
    import_released(release_fixtures / "tokenizer.ckpt", tmp_path / "run")
    pixels = load_tokenizer(tmp_path / "run").decode(outputs[f"{media}_quantized_M4"], clamp=False)
    torch.testing.assert_close(pixels, outputs[f"{media}_decoded"], atol=1e-4, rtol=0)


def test_the_released_vae_weights_give_other_features(release_fixtures, outputs, tmp_path):
    import_released(release_fixtures / "tokenizer.ckpt", tmp_path / "run", weights="vae")
    feature = load_tokenizer(tmp_path / "run").encode(outputs["image"])
    assert (feature - outputs["image_feature"]).abs().max() > 1e-2


def test_an_import_parses_its_recipe_once_and_looks_for_no_checkpoint(released, tmp_path, monkeypatch):
    parsed = []
    original = tokenizers.parse_recipe
    monkeypatch.setattr(tokenizers, "parse_recipe", lambda *arguments: parsed.append(1) or original(*arguments))
    for name in ("load_yaml", "parse_recipe"):
        monkeypatch.setattr(recipe, name, lambda *arguments: pytest.fail("the run was read"))
    described = import_released(released, tmp_path / "run")
    monkeypatch.undo()
    assert len(parsed) == 1
    assert described == describe(tmp_path / "run")
