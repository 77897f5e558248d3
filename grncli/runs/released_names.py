"""Reading the released checkpoints: their parameter names in ours, and the network's sizes from the weights alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.models.text_transformer import AttentionVariant, TextTransformerConfig
from grncli.models.tokenizer import TokenizerConfig
from grncli.runs.kinds import plain_name
from grncli.runtime.tensor_files import LazyTensor
from grncli.tokens import Prediction, TokenCodec

# Released names to ours. What stands in braces is the same on both sides: see ``_PLACES``.
RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
STAGE, OUR_STAGE = "{part}.{way}samples.{stage}.{way}samples.", "{part}.stages.{stage}."
TOKENIZER_NAMES = {
    **{
        f"{STAGE}{{block}}.{old}.{{leaf}}": f"{OUR_STAGE}blocks.{{block}}.{new}.{{leaf}}"
        for old, new in RESIDUAL.items()
    },
    f"{STAGE}{{block}}.shortcut.{{leaf}}": f"{OUR_STAGE}blocks.{{block}}.shortcut.{{leaf}}",
    f"{STAGE}{{last}}.resample.1.{{leaf}}": f"{OUR_STAGE}{{way}}.space.{{leaf}}",
    f"{STAGE}{{last}}.time_conv.{{leaf}}": f"{OUR_STAGE}{{way}}.time.{{leaf}}",
    **{
        f"{{part}}.middle.{place}.{old}.{{leaf}}": f"{{part}}.middle.block{block}.{new}.{{leaf}}"
        for place, block in ((0, 1), (2, 2))
        for old, new in RESIDUAL.items()
    },
    "{part}.middle.1.to_qkv.{leaf}": "{part}.middle.attention.qkv.{leaf}",
    "{part}.middle.1.proj.{leaf}": "{part}.middle.attention.projection.{leaf}",
    "{part}.middle.1.norm.{leaf}": "{part}.middle.attention.norm.{leaf}",
    "{part}.head.0.{leaf}": "{part}.head.norm.{leaf}",
    "{part}.head.2.{leaf}": "{part}.head.conv.{leaf}",
    "{part}.conv1.{leaf}": "{part}.stem.{leaf}",
    "conv1.{leaf}": "to_moments.{leaf}",
    "conv2.{leaf}": "from_feature.{leaf}",
}
GENERATOR_NAMES = {
    "x_embedder.proj1.weight": "embedding.table",
    "x_embedder.proj2.{leaf}": "embedding.expand.{leaf}",
    "t_embedder.mlp.0.{leaf}": "ratio.first.{leaf}",
    "t_embedder.mlp.2.{leaf}": "ratio.second.{leaf}",
    "y_embedder.embedding_table.weight": "classes",
    "in_context_posemb": "context",
    "blocks.{block}.norm{norm}.weight": "blocks.{block}.norm{norm}.gain",
    "blocks.{block}.attn.q_norm.weight": "blocks.{block}.attention.query_norm.gain",
    "blocks.{block}.attn.k_norm.weight": "blocks.{block}.attention.key_norm.gain",
    "blocks.{block}.attn.qkv.{leaf}": "blocks.{block}.attention.qkv.{leaf}",
    "blocks.{block}.attn.proj.{leaf}": "blocks.{block}.attention.projection.{leaf}",
    "blocks.{block}.mlp.w12.{leaf}": "blocks.{block}.mlp.gate_and_up.{leaf}",
    "blocks.{block}.mlp.w3.{leaf}": "blocks.{block}.mlp.down.{leaf}",
    "blocks.{block}.adaLN_modulation.1.{leaf}": "blocks.{block}.modulation.{leaf}",
    "final_layer.norm_final.weight": "head.norm.gain",
    "final_layer.linear.{leaf}": "head.linear.{leaf}",
    "final_layer.adaLN_modulation.1.{leaf}": "head.modulation.{leaf}",
}
_PLACES = {"part": "encoder|decoder", "way": "down|up", "norm": "[12]", "leaf": r"\w+"}
_PLACES |= dict.fromkeys(("stage", "block", "last"), r"\d+")
POSITIONS = "net.pos_embed"  # fixed sinusoids, which we compute

# Our names to the released ones; what has several there is joined here, in this order.
TEXT_NAMES = {
    "embedding.table": ["word_embed.weight"],
    "embedding.bias": ["word_embed.bias"],
    "text_projection.weight": ["text_proj.weight"],
    "text_projection.bias": ["text_proj.bias"],
    "ratio.first.weight": ["pt_embedder.mlp.0.weight"],
    "ratio.first.bias": ["pt_embedder.mlp.0.bias"],
    "ratio.second.weight": ["pt_embedder.mlp.2.weight"],
    "ratio.second.bias": ["pt_embedder.mlp.2.bias"],
    "head.norm.gain": ["head.norm.weight"],
    "head.linear.weight": ["head.proj.weight"],
    "head.linear.bias": ["head.proj.bias"],
}
TEXT_BLOCK_NAMES = {
    "norm1.gain": ["input_layernorm.weight"],
    "attention.qkv.weight": ["attn.q_proj.weight", "attn.k_proj.weight", "attn.v_proj.weight"],
    "attention.query_norm.gain": ["attn.q_norm.weight"],
    "attention.key_norm.gain": ["attn.k_norm.weight"],
    "attention.projection.weight": ["attn.o_proj.weight"],
    "norm2.gain": ["post_attention_layernorm.weight"],
    "mlp.gate_and_up.weight": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    "mlp.down.weight": ["mlp.down_proj.weight"],
}
TEXT_BLOCK = re.compile(r"block_chunks\.(\d+)\.module\.(\d+)\.")


def tokenizer_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released tokenizer's weights under our names, norm gains as vectors, in float32.

    Raises
    ------
    ValueError
        If a name is not of the released layout.
    """
    weights = {}
    for name, tensor in released.items():
        ours = rename(str(name), TOKENIZER_NAMES, "released tokenizer")
        if ours.endswith(".gamma"):
            ours, tensor = ours.removesuffix("gamma") + "gain", tensor.flatten()
        weights[ours] = tensor.float().contiguous()
    return weights


def tokenizer_config(weights: Mapping[str, Tensor]) -> TokenizerConfig:
    """The sizes of the network that ``weights`` (under our names) belong to.

    Raises
    ------
    ValueError
        If the weights of a layer that sizes are read from are missing.
    """

    try:
        encoder_width, patches = weights["encoder.stem.weight"].shape[:2]
        decoder_width = weights["decoder.head.conv.weight"].shape[1]
        stages = _count(weights, r"encoder\.stages\.(\d+)\.")
        widths = [weights[f"encoder.stages.{i}.blocks.0.conv1.weight"].shape[0] for i in range(stages)]
        return TokenizerConfig(
            channels=weights["from_feature.weight"].shape[0],
            patch=round((patches / 3) ** 0.5),
            encoder_width=encoder_width,
            decoder_width=decoder_width,
            multipliers=tuple(width // encoder_width for width in widths),
            encoder_blocks=_count(weights, r"encoder\.stages\.0\.blocks\.(\d+)\."),
            decoder_blocks=_count(weights, r"decoder\.stages\.0\.blocks\.(\d+)\."),
            halve_space=tuple(i + 1 for i in range(stages) if f"encoder.stages.{i}.down.space.weight" in weights),
            halve_time=tuple(i + 1 for i in range(stages) if f"encoder.stages.{i}.down.time.weight" in weights),
            attention="encoder.middle.attention.qkv.weight" in weights,
        )
    except KeyError as missing:
        raise ValueError(f"the weights have no {missing}") from None


def generator_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released class-conditional generator's weights under our names, in float32.

    Raises
    ------
    ValueError
        If a name is not of the released layout.
    """
    weights = {}
    for name, tensor in released.items():
        if name == POSITIONS:
            continue
        ours = rename(str(name).removeprefix("net."), GENERATOR_NAMES, "released class-conditional generator")
        tensor = tensor.float()
        if ours == "embedding.table":  # a 1x1 convolution there, whose columns we look up
            tensor = tensor.flatten(1).t()
        elif ours.startswith("embedding."):
            tensor = tensor.flatten(1) if tensor.dim() > 1 else tensor
        weights[ours] = (tensor.squeeze(0) if ours == "context" else tensor).contiguous()
    return weights


def generator_config(
    weights: Mapping[str, Tensor], *, prediction: Literal["ind", "bit"], rounds: int, in_context_start: int
) -> ClassTransformerConfig:
    """The sizes of the generator that ``weights`` (under our names) belong to.

    The weights do not show what is predicted, by how many rounds, and where the in-context tokens join.

    Raises
    ------
    ValueError
        If the weights of a layer that sizes are read from are missing, or do not fit the rounds.
    """
    try:
        inputs, bottleneck = weights["embedding.table"].shape
        classes, width = weights["classes"].shape
        head_width = weights["blocks.0.attention.query_norm.gain"].shape[0]
        in_context_tokens = weights["context"].shape[0]
    except KeyError as missing:
        raise ValueError(f"the weights have no {missing}") from None
    per_channel = 2**rounds if prediction == "ind" else 2 * rounds
    if inputs % per_channel:
        raise ValueError(f"the network has {inputs} inputs, which are no channels of {rounds} rounds ({prediction})")
    return ClassTransformerConfig(
        prediction=prediction,
        depth=_count(weights, r"blocks\.(\d+)\."),
        width=width,
        heads=width // head_width,
        bottleneck=bottleneck,
        in_context_tokens=in_context_tokens,
        in_context_start=in_context_start,
        rounds=rounds,
        channels=inputs // per_channel,
        classes=classes - 1,
    )


def text_weights(released: Mapping[str, Tensor]) -> dict[str, LazyTensor]:
    """The released text-conditional generator's weights under our names, in float32 or bfloat16 as they are.

    Raises
    ------
    ValueError
        If a name is not of the released layout, or one of it is missing.
    RuntimeError
        If weights that are joined do not fit each other.
    """
    there = {plain_name(name): tensor for name, tensor in released.items()}
    names = dict(TEXT_NAMES)
    for number, (chunk, place) in enumerate(_text_blocks(there)):
        block = f"block_chunks.{chunk}.module.{place}."
        names |= {f"blocks.{number}.{ours}": [block + name for name in on] for ours, on in TEXT_BLOCK_NAMES.items()}
    wanted = {name: None for joined in names.values() for name in joined}
    unknown = next((name for name in there if name not in wanted), None)
    if unknown is not None:
        raise ValueError(f"the weights hold {unknown!r}, which no released text-conditional generator has")
    missing = next((name for name in wanted if name not in there), None)
    if missing is not None:
        raise ValueError(f"the weights have no {missing!r}")
    if len(there) < len(released):
        raise ValueError("two of the weights have the same name but for what wraps it")
    for joined in names.values():
        _check_joined(joined, [there[name] for name in joined])
    return {
        ours: LazyTensor.of(_rows if ours == "embedding.table" else _joined, [there[name] for name in joined])
        for ours, joined in names.items()
    }


def _text_blocks(names: Iterable[str]) -> list[tuple[int, int]]:
    """Chunk and place of each block, in order; ValueError where one is left out, as the rest would be a network too."""
    blocks = sorted({(int(match[1]), int(match[2])) for name in names if (match := TEXT_BLOCK.match(name))})
    before = (-1, 0)
    for chunk, place in blocks:
        if (chunk, place) not in ((before[0], before[1] + 1), (before[0] + 1, 0)):
            raise ValueError(f"the weights have no block in front of 'block_chunks.{chunk}.module.{place}'")
        before = chunk, place
    return blocks


def _check_joined(names: Sequence[str], parts: Sequence[Tensor]) -> None:
    """ValueError for what are no weights, and for key and value, or gate and up, of different shapes."""
    for name, part in zip(names, parts, strict=True):
        if not part.is_floating_point() or not part.numel():
            kind = f"{str(part.dtype).removeprefix('torch.')} {list(part.shape)}"
            raise ValueError(f"{name!r} is {kind}, no floating-point numbers")
    if len({part.shape for part in parts[-2:]}) > 1:
        raise ValueError(f"{names[-2]!r} and {names[-1]!r} have different shapes")


def _joined(parts: Sequence[Tensor]) -> Tensor:
    whole = parts[0] if len(parts) == 1 else torch.cat(list(parts))
    return whole if whole.dtype == torch.bfloat16 else whole.float()


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """A linear layer there, whose columns we look up."""
    return _joined(parts).t()


def text_config(
    weights: Mapping[str, LazyTensor], *, attention: AttentionVariant, prediction: Prediction, rounds: int
) -> TextTransformerConfig:
    """The sizes of the text-conditional generator that ``weights`` (under our names) belong to.

    The weights do not show how text attends, what is predicted, and by how many rounds.

    Raises
    ------
    ValueError
        If there is no block, or the inputs do not fit the rounds.
    """
    if "blocks.0.norm1.gain" not in weights:
        raise ValueError("the weights have no block")
    inputs, width = weights["embedding.table"].shape
    block = {name: weights[f"blocks.0.{name}"].shape for name in TEXT_BLOCK_NAMES}
    (head_width,) = block["attention.query_norm.gain"]
    per_channel = TokenCodec(prediction, rounds, 1)
    if inputs % (per_channel.categories * per_channel.token_channels):
        raise ValueError(
            f"the network has {inputs} inputs, which are no channels of {rounds} rounds ({prediction}); change "
            "rounds or prediction with --set"
        )
    return TextTransformerConfig(
        prediction=prediction,
        attention=attention,
        depth=_count(weights, r"blocks\.(\d+)\."),
        width=width,
        heads=width // head_width,
        key_value_heads=(block["attention.qkv.weight"][0] - width) // (2 * head_width),
        hidden=block["mlp.down.weight"][1],
        text_width=weights["text_projection.weight"].shape[1],
        rounds=rounds,
        channels=inputs // (per_channel.categories * per_channel.token_channels),
    )


def _count(weights: Mapping[str, object], pattern: str) -> int:
    """How many layers are numbered by ``pattern``."""
    return 1 + max((int(m[1]) for name in weights if (m := re.match(pattern, name))), default=-1)


def rename(name: str, names: Mapping[str, str], kind: str, **known: object) -> str:
    """What a name becomes by a table of templates.

    Parameters
    ----------
    kind : of the networks that have the names on the left, for the message
    known : values of what stands in braces on the right alone

    Raises
    ------
    ValueError
        If no template is that of the name.
    """
    for template, other in names.items():
        match = _pattern(template).fullmatch(name)
        if match:
            return other.format(**{**known, **match.groupdict()})
    raise ValueError(f"the weights hold {name!r}, which no {kind} has")


@cache
def _pattern(template: str) -> re.Pattern[str]:
    """A template as an expression; what stands in it twice is the same both times."""
    seen: set[str] = set()

    def place(match: re.Match[str]) -> str:
        name = match[1]
        again = name in seen
        seen.add(name)
        return f"(?P={name})" if again else f"(?P<{name}>{_PLACES[name]})"

    return re.compile(re.sub(r"\\{(\w+)\\}", place, re.escape(template)))
