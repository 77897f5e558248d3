"""Text-conditional generators as run directories: imported from released files, with what no file tells, and loaded."""

import json
import os

import pytest
import torch
import yaml
from safetensors.torch import load_file

from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.runs.checkpoint import find_checkpoint
from grncli.runs.describing import describe
from grncli.runs.generators import load_generator, open_generator
from grncli.runs.importing import import_released
from grncli.runs.released_names import text_weights
from grncli.runtime.errors import CheckpointError, GrnError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.tensor_files import read_tensors, sha256_of

CONFIG = TextTransformerConfig(
    attention="text-only",
    depth=4,
    width=24,
    heads=4,
    key_value_heads=2,
    hidden=24,
    text_width=6,
    rounds=4,
    channels=2,
)
MAY, JUNE = ["attention=text-only"], ["attention=full"]
NAMES = {
    "norm1.gain": "input_layernorm.weight",
    "attention.query_norm.gain": "attn.q_norm.weight",
    "attention.key_norm.gain": "attn.k_norm.weight",
    "attention.projection.weight": "attn.o_proj.weight",
    "norm2.gain": "post_attention_layernorm.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
}
OUTER = {"text_projection": "text_proj", "ratio.first": "pt_embedder.mlp.0", "ratio.second": "pt_embedder.mlp.2"}


def text_generator(filled, seed=0, **config):
    sizes = TextTransformerConfig(**{**vars(CONFIG), **config})
    return filled(TextTransformer(sizes), seed).eval().requires_grad_(False)


def text_layout(network, in_chunk=2):
    """The weights of a text-conditional generator as a released file holds them."""
    config, ours = network.config, network.state_dict()
    released = {
        "word_embed.weight": ours["embedding.table"].t().contiguous(),
        "word_embed.bias": ours["embedding.bias"],
        "head.norm.weight": ours["head.norm.gain"],
        "head.proj.weight": ours["head.linear.weight"],
        "head.proj.bias": ours["head.linear.bias"],
    }
    released |= {f"{new}.{part}": ours[f"{old}.{part}"] for old, new in OUTER.items() for part in ("weight", "bias")}
    rows = config.width // config.heads * config.key_value_heads
    for number in range(config.depth):
        block = f"block_chunks.{number // in_chunk}.module.{number % in_chunk}."
        weights = {new: ours[f"blocks.{number}.{old}"] for old, new in NAMES.items()}
        joined = ours[f"blocks.{number}.attention.qkv.weight"].split([config.width, rows, rows])
        weights |= {f"attn.{name}_proj.weight": part for name, part in zip("qkv", joined, strict=True)}
        joined = ours[f"blocks.{number}.mlp.gate_and_up.weight"].chunk(2)
        weights |= {f"mlp.{name}_proj.weight": part for name, part in zip(("gate", "up"), joined, strict=True)}
        released |= {block + name: tensor.clone() for name, tensor in weights.items()}
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
    return text_generator(filled)


@pytest.fixture(scope="module")
def layout(network):
    return text_layout(network)


@pytest.fixture
def save(tmp_path):
    def save_as(content, name="text.pth", **options):
        torch.save(content, tmp_path / name, **options)
        return tmp_path / name

    return save_as


@pytest.fixture
def imported(layout, save, tmp_path):
    """The recipe, as plain data, of a file of this name with these settings."""

    def make(name="text.pth", settings=()):
        import_released(save(layout, name), tmp_path / "run", settings=settings)
        return yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())

    return make


# Weights and sizes


@pytest.mark.parametrize("in_chunk", [1, 2, 4])
@pytest.mark.parametrize("sizes", [{}, {"key_value_heads": 4, "depth": 12, "text_width": 9}, {"channels": 5}])
def test_sizes_and_weights_are_those_of_the_file(filled, save, tmp_path, sizes, in_chunk):
    network = text_generator(filled, **sizes)
    import_released(save(text_layout(network, in_chunk)), tmp_path / "run", settings=MAY)
    loaded = load_generator(tmp_path / "run")
    assert loaded.config == network.config
    assert same(loaded.state_dict(), network)


def test_chunks_may_be_of_different_sizes(filled, save, tmp_path):
    network, places = (
        text_generator(filled, depth=16),
        [(0, 0), *((1, n) for n in range(11)), *((2, n) for n in range(4))],
    )
    weights = {}
    for name, weight in text_layout(network, in_chunk=1).items():
        number = int(name.split(".")[1]) if name.startswith("block") else 0
        weights[name.replace(f"chunks.{number}.module.0", "chunks.{}.module.{}".format(*places[number]))] = weight
    import_released(save(weights), tmp_path / "run", settings=JUNE)
    assert same(load_generator(tmp_path / "run").state_dict(), network)


@pytest.mark.parametrize("sizes", [{"rounds": 2}, {"prediction": "ind"}, {"prediction": "ind", "rounds": 3}])
def test_what_is_predicted_can_be_told(filled, save, tmp_path, sizes):
    network = text_generator(filled, **sizes)
    settings = [f"{name}={value}" for name, value in sizes.items()]
    import_released(save(text_layout(network)), tmp_path / "run", settings=MAY + settings)
    assert load_generator(tmp_path / "run").config == network.config


@pytest.mark.parametrize(("weights", "seed"), [(None, 0), ("ema", 0), ("model", 1)])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: "_fsdp_wrapped_module." + name.replace(".module.", "._fsdp_wrapped_module.module."),
        lambda name: name.replace(".attn.", "._checkpoint_wrapped_module._orig_mod.attn."),
    ],
    ids=["plain", "data parallel", "sharded", "checkpointed and compiled"],
)
def test_a_checkpoint_of_the_trainer_is_imported(filled, save, tmp_path, weights, seed, wrap):
    entries = {"gpt_ema_fsdp": text_generator(filled), "gpt_fsdp": text_generator(filled, 1)}
    wrapped = {
        entry: {wrap(name): weight for name, weight in text_layout(network).items()}
        for entry, network in entries.items()
    }
    file = save({"epoch": 3, "trainer": {**wrapped, "config": {"a": 1}}})
    import_released(file, tmp_path / "run", weights=weights, settings=JUNE)
    assert same(load_generator(tmp_path / "run").state_dict(), text_generator(filled, seed))


def test_the_moving_average_is_preferred_and_recorded(layout, save, tmp_path):
    file = save({"trainer": {"gpt_fsdp": layout, "gpt_ema_fsdp": layout}})
    described = import_released(file, tmp_path / "run", settings=MAY)
    origin = {"file": "text.pth", "weights": "ema", "sha256": sha256_of(file)}
    assert described["recipe"]["imported"] == origin
    assert described == describe(tmp_path / "run")


def test_a_trainer_without_an_average_gives_its_weights(layout, save, tmp_path):
    described = import_released(save({"trainer": {"gpt_fsdp": layout}}), tmp_path / "run", settings=MAY)
    assert described["recipe"]["imported"]["weights"] == "model"
    message = message_of(import_released, tmp_path / "text.pth", tmp_path / "other", weights="ema", settings=MAY)
    assert "has no weights under 'ema', expected one of ['model']" in message


@pytest.mark.parametrize("legacy", [False, True])
def test_either_file_format_is_read(layout, network, save, tmp_path, legacy):
    file = save(layout, _use_new_zipfile_serialization=not legacy)
    import_released(file, tmp_path / "run", settings=MAY)
    assert same(load_generator(tmp_path / "run").state_dict(), network)


# Number formats


@pytest.mark.parametrize(
    ("stored", "kept"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float64, torch.float32),
    ],
)
def test_a_run_holds_the_number_format_of_its_file(layout, save, tmp_path, stored, kept):
    import_released(save({name: weight.to(stored) for name, weight in layout.items()}), tmp_path / "run", settings=MAY)
    weights = read_tensors(find_checkpoint(tmp_path / "run") / "ema.safetensors")
    assert {weight.dtype for weight in weights.values()} == {kept}


@pytest.mark.parametrize("asked", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_a_run_is_loaded_in_the_format_asked_for(layout, network, save, tmp_path, stored, asked):
    import_released(save({name: weight.to(stored) for name, weight in layout.items()}), tmp_path / "run", settings=MAY)
    loaded = open_generator(tmp_path / "run", dtype=asked)
    weights = loaded.network.state_dict()
    assert all(torch.equal(weights[name], each.to(stored).to(asked)) for name, each in network.state_dict().items())
    assert loaded.identity["sha256"] == sha256_of(find_checkpoint(tmp_path / "run") / "ema.safetensors")


def test_a_run_is_loaded_in_float32_by_default(layout, save, tmp_path):
    import_released(save({name: weight.bfloat16() for name, weight in layout.items()}), tmp_path / "run", settings=MAY)
    assert {weight.dtype for weight in load_generator(tmp_path / "run").parameters()} == {torch.float32}


# What no file tells


@pytest.mark.parametrize(
    ("name", "attention", "grid", "tokenizers"),
    [
        ("GRN_T2I_2B.pth", "text-only", "1x64x64", ["64dim_M4"]),
        ("GRN_T2V_2B.pth", "text-only", "21x30x53", ["64dim_M4"]),
        ("GRN_T2I_2B_FSA_137200.pth", "full", "1x64x64", ["20260618"]),
        ("GRN_T2V_2B_FSA_sft3800_non_ema.pth", "full", "21x30x53", ["20260618"]),
        ("GRN_T2V_2B_FSA_sft147400_ema.pth", "full", "21x30x53", ["20260626"]),
        ("GRN_T2V_TITAN_FSA_sft10600_ema.pth", "full", "21x30x53", ["20260626"]),
        ("GRN_T2I_titan_FSA_256x256.pth", "full", "1x16x16", ["20260618", "20260626"]),
        ("GRN_T2V_8B_later.pth", "full", "21x30x53", ["20260618", "20260626"]),
    ],
)
def test_released_files_are_known_by_name(imported, name, attention, grid, tokenizers):
    recipe = imported(name)
    assert recipe["network"]["attention"] == attention
    assert recipe["bits"]["grids"] == {grid: 0}
    assert [file.removesuffix(".ckpt").partition("HBQ_")[2][-8:] for file in recipe["text"]["tokenizers"]] == [
        each[-8:] for each in tokenizers
    ]


def test_the_conventions_of_may_follow_from_its_attention(imported):
    recipe = imported(settings=MAY)
    nothing = {"prefix": "", "suffix": "", "suffix_field": "", "negative_prompt": ""}
    clip = {**nothing, "guidance": 4.0, "temperature": 1.0}
    assert recipe["text"] == {
        "encoder": {},
        "max_tokens": 512,
        "tokenizers": ["HBQ_tokenizer_64dim_M4.ckpt"],
        "image": {**nothing, "guidance": 3.0, "temperature": 1.1},
        "clip": clip,
        "first_frame": clip,
        "schedule": "cosine",
        "cosine_end": 0.999,
    }
    bits = {"tokenizer": {}, "stride": [4, 16, 16], "labels": [], "grids": {"1x16x16": 0}, "stores": [], "fps": 16.0}
    assert recipe["bits"] == bits


def test_the_conventions_of_june_follow_from_its_attention(imported):
    text = imported(settings=JUNE)["text"]
    assert text["cosine_end"] == 0.95
    assert {task: text[task]["prefix"] for task in ("image", "clip", "first_frame")} == {
        "image": "<T2I>",
        "clip": "<T2V>",
        "first_frame": "<I2V>",
    }
    assert [text[task]["suffix"] for task in ("image", "clip")] == ["", " The quality is very high!"]


def test_features_as_wide_as_those_of_umt5_are_its(filled, save, tmp_path):
    network = text_generator(filled, text_width=4096)
    described = import_released(save(text_layout(network)), tmp_path / "run", settings=MAY)
    assert described["recipe"]["text"]["encoder"] == {"name": "umt5-xxl"}


SET = {
    "cosine_end=0.9": ("text", "cosine_end", 0.9),
    "max_tokens=256": ("text", "max_tokens", 256),
    "tokenizers=[]": ("text", "tokenizers", []),
    "schedule=linear": ("text", "schedule", "linear"),
    "image.prefix=<X>": ("text", "image", "prefix", "<X>"),
    "image.prefix=": ("text", "image", "prefix", ""),
    "clip.negative_prompt=no: bad, ugly": ("text", "clip", "negative_prompt", "no: bad, ugly"),
    "first_frame.suffix= sharp. ": ("text", "first_frame", "suffix", " sharp. "),
    "image.guidance=5": ("text", "image", "guidance", 5.0),
    "clip.temperature=0.7": ("text", "clip", "temperature", 0.7),
    f"encoder.sha256={'12' * 32}": ("text", "encoder", {"sha256": "12" * 32}),
    "fps=8": ("bits", "fps", 8.0),
    "stride=[2, 4, 4]": ("bits", "stride", [2, 4, 4]),
    "grid=3x4x5": ("bits", "grids", {"3x4x5": 0}),
}


@pytest.mark.parametrize("setting", SET)
def test_each_default_can_be_set(imported, setting):
    *fields, expected = SET[setting]
    value = imported(settings=[*JUNE, setting])
    for field in fields:
        value = value[field]
    assert value == expected


def test_a_known_file_takes_other_settings_and_its_own_attention(imported):
    recipe = imported("GRN_T2V_2B_FSA_sft3800_non_ema.pth", settings=[*JUNE, "clip.guidance=6"])
    assert recipe["text"]["clip"] == {
        "prefix": "<T2V>",
        "suffix": " The quality is very high!",
        "suffix_field": "",
        "negative_prompt": "",
        "guidance": 6.0,
        "temperature": 1.0,
    }


# Refusals


def test_an_unknown_file_asks_for_its_attention_with_both_choices(layout, save, tmp_path):
    message = message_of(import_released, save(layout), tmp_path / "run", error=UsageError)
    for part in (
        "--set attention=text-only (the release of May 2026",
        "--set attention=full (the release of June 2026",
    ):
        assert part in message
    assert "a wrong attention shifts every logit without any error" in message


@pytest.mark.parametrize(("name", "wrong"), [("GRN_T2V_2B.pth", JUNE), ("GRN_T2I_2B_FSA_137200.pth", MAY)])
def test_a_known_file_refuses_the_other_attention_and_says_how_to_override(layout, save, tmp_path, name, wrong):
    message = message_of(import_released, save(layout, name), tmp_path / "run", settings=wrong, error=UsageError)
    assert f"--set {wrong[0]} would shift every logit" in message
    assert "give the file another name" in message
    assert not (tmp_path / "run").exists()


def test_a_copy_under_another_name_takes_the_other_attention(layout, save, tmp_path):
    os.link(save(layout, "GRN_T2V_2B.pth"), tmp_path / "mine.pth")
    import_released(tmp_path / "mine.pth", tmp_path / "run", settings=JUNE)
    assert load_generator(tmp_path / "run").config.attention == "full"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("attention=half", "attention is 'half', expected text-only or full"),
        ("atention=full", "--set atention=full: expected attention=text-only or "),
        ("rounds=9", "rounds is 9, expected 1 to 8"),
        ("rounds=x", "rounds is 'x', expected 1 to 8"),
        ("rounds=3", "16 inputs, which are no channels of 3 rounds (bit); change rounds or prediction with"),
        ("prediction=all", "prediction is 'all', expected ind or bit"),
        ("encoder.sha256=123e5", "encoder.sha256 is '123e5', expected 64 hexadecimal digits"),
        ("grid=4", "grid is 4, expected tokens as TxHxW"),
        ("fps=0", "fps is 0.0, expected more than 0"),
        ("stride=5", "bits.stride is 5: expected a list of 3 whole numbers"),
        ("image.guidance=x", "text.image.guidance is 'x': expected a number"),
        ("clip.temperature=0", "temperature is 0.0 and guidance 4.0, expected a positive and a finite one"),
        ("cosine_end=1.5", "max_tokens is 512 and cosine_end 1.5, expected 1 or more and a ratio above 0 up to 1"),
        ("schedule=[", "--set schedule=[: has no readable value, expected schedule=cosine"),
        ("classes=5", "--set classes=5: expected attention=text-only or "),
    ],
)
def test_impossible_settings_are_refused_by_name(layout, save, tmp_path, setting, said):
    told = [setting] if setting.startswith("attention") else [*MAY, setting]
    message = message_of(import_released, save(layout), tmp_path / "run", settings=told, error=GrnError)
    assert said in message
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]


def without(weights, name):
    return {key: value for key, value in weights.items() if key != name}


def without_block(*numbers):
    left_out = "block_chunks.{}.module.".format(*numbers) + "".join(f"{number}." for number in numbers[1:])
    return lambda good: {name: weight for name, weight in good.items() if not name.startswith(left_out)}


QUERY, KEY, VALUE = (f"block_chunks.0.module.1.attn.{name}_proj.weight" for name in "qkv")
WRONG = {
    "missing part": (lambda good: without(good, KEY), f"the weights have no '{KEY}'"),
    "missing layer": (lambda good: without(good, "pt_embedder.mlp.2.bias"), "have no 'pt_embedder.mlp.2.bias'"),
    "no blocks": (lambda good: {name: w for name, w in good.items() if "block" not in name}, "have no block"),
    "unknown": (lambda good: {**good, "lora.a": torch.zeros(1)}, "hold 'lora.a', which no released text-conditional"),
    "in another block": (lambda good: {**good, "block_chunks.0.module.0.x": torch.zeros(1)}, "module.0.x', which no"),
    "twice": (lambda good: {**good, f"module.{KEY}": good[KEY]}, "two of the weights have the same name"),
    "more than tensors": (lambda good: {**good, "epoch": 5}, "it holds more than tensors"),
    "names that are no text": (lambda good: {**good, 5: torch.zeros(1)}, "hold '5'"),
    "other shape": (lambda good: {**good, "head.proj.bias": torch.zeros(3)}, "head.linear.bias has the shape [3]"),
    "key unlike value": (
        lambda good: {**good, KEY: torch.zeros(6, 24)},
        f"'{KEY}' and '{VALUE}' have different shapes",
    ),
    "query that does not fit": (lambda good: {**good, QUERY: torch.zeros(24, 15)}, "give the weights of a released"),
    "scalar": (lambda good: {**good, "word_embed.weight": torch.zeros(())}, "give the weights of a released"),
    "whole numbers": (lambda good: {**good, KEY: torch.ones(12, 24).int()}, f"'{KEY}' is int32 [12, 24], no floating"),
    "nothing": (lambda good: {**good, KEY: torch.zeros(0, 24)}, f"'{KEY}' is float32 [0, 24], no floating"),
    "sparse": (lambda good: {**good, KEY: good[KEY].to_sparse()}, "it holds more than tensors"),
    "a chunk is left out": (without_block(0), "no block in front of 'block_chunks.1.module.0'"),
    "a block is left out": (without_block(1, 0), "no block in front of 'block_chunks.1.module.1'"),
    "no number": (lambda good: {**good, "head.proj.bias": torch.full((16,), float("nan"))}, "no finite numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_gets_one_sentence_and_leaves_no_run(layout, save, tmp_path, case):
    make, expected = WRONG[case]
    assert expected in message_of(import_released, save(make(layout)), tmp_path / "run", settings=MAY)
    assert [path.name for path in tmp_path.iterdir()] == ["text.pth"]


def test_weights_that_are_no_numbers_leave_the_run_that_was_there(imported, layout, save, tmp_path):
    imported(settings=MAY)
    before = open_generator(tmp_path / "run").identity
    broken = {**layout, "head.proj.bias": torch.full((16,), float("inf"))}
    message_of(import_released, save(broken), tmp_path / "run", settings=MAY, overwrite=True)
    assert open_generator(tmp_path / "run").identity == before


def test_a_file_that_is_written_to_meanwhile_is_refused(layout, save, tmp_path, monkeypatch):
    file = save(layout)
    written = import_released.__globals__["write_checkpoint"]

    def write(*arguments):
        os.utime(file, ns=(1, 1))
        return written(*arguments)

    monkeypatch.setitem(import_released.__globals__, "write_checkpoint", write)
    assert "was replaced while it was read" in message_of(import_released, file, tmp_path / "run", settings=MAY)
    assert not (tmp_path / "run").exists()


def test_settings_are_refused_before_the_file_is_hashed(layout, save, tmp_path, monkeypatch):
    monkeypatch.setattr("grncli.runtime.held_files.HeldFile.sha256", lambda held: pytest.fail("gigabytes were read"))
    message_of(import_released, save(layout), tmp_path / "run", settings=["attention=x"], error=UsageError)


# With the release's checkpoint


def test_the_released_checkpoint_gives_the_released_logits(release_fixtures, tmp_path):
    import_released(release_fixtures / "t2iv_bit.pth", tmp_path / "run", settings=MAY)
    network, outputs = load_generator(tmp_path / "run"), load_file(release_fixtures / "t2iv_bit_io.safetensors")
    for case in ("image", "wide", "video"):
        for text, released in (("text", "cond"), ("negative", "uncond")):
            logits = network(outputs[f"{case}_state"], outputs[f"{case}_t"], [outputs[f"{case}_{text}"]])
            expected = outputs[f"{case}_logits_{released}"]
            torch.testing.assert_close(logits.flatten(3).permute(0, 3, 2, 1), expected, atol=1e-4, rtol=0)


def test_the_layout_of_these_tests_is_the_released_one(release_fixtures, tmp_path, filled):
    theirs = torch.load(release_fixtures / "t2iv_bit.pth", weights_only=True)
    import_released(release_fixtures / "t2iv_bit.pth", tmp_path / "run", settings=MAY)
    ours = text_layout(load_generator(tmp_path / "run"), in_chunk=1)
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_tensors_are_joined_only_when_they_are_written(layout):
    weights = text_weights(layout)
    joined = weights["blocks.0.attention.qkv.weight"]
    assert (joined.shape, joined.dtype) == ((48, 24), torch.float32)
    assert joined.make().data_ptr() != joined.make().data_ptr()
    alone = weights["blocks.0.mlp.down.weight"].make()
    assert alone.data_ptr() == layout["block_chunks.0.module.0.mlp.down_proj.weight"].data_ptr()


def test_the_description_can_be_written_as_json(imported, tmp_path):
    imported(settings=MAY)
    described = json.loads(json.dumps(describe(tmp_path / "run")))
    assert (described["attention"], described["classes"]) == ("text-only", 0)
    assert set(described["recipe"]) == {"kind", "network", "bits", "text", "imported"}


def test_an_import_tells_how_many_bytes_are_written(layout, save, tmp_path):
    told = []
    monitor = Monitor(progress=lambda done, total, note: told.append((done, total)))
    import_released(save(layout), tmp_path / "run", settings=MAY, monitor=monitor)
    total = sum(weight.nbytes for weight in layout.values())
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
