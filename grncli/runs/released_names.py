"""Reading the released checkpoints: their parameter names in ours, and the network's sizes from the weights alone."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.models.text_transformer import AttentionVariant, TextTransformerConfig
from grncli.models.tokenizer import TokenizerConfig
from grncli.runs.kinds import plain_name
from grncli.runtime.tensor_files import LazyTensor
from grncli.tokens import Prediction, TokenCodec

# (pattern, replacement) tried in order; the first that matches a whole name applies.
RESIDUAL = {"residual.0": "norm1", "residual.2": "conv1", "residual.3": "norm2", "residual.6": "conv2"}
STAGE = r"(encoder|decoder)\.(?:down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\."
TOKENIZER_NAMES = [
    *((rf"{STAGE}{re.escape(old)}\.(\w+)", rf"\1.stages.\2.blocks.\3.{new}.\4") for old, new in RESIDUAL.items()),
    (rf"{STAGE}shortcut\.(\w+)", r"\1.stages.\2.blocks.\3.shortcut.\4"),
    (r"encoder\.downsamples\.(\d+)\.downsamples\.\d+\.resample\.1\.(\w+)", r"encoder.stages.\1.down.space.\2"),
    (r"encoder\.downsamples\.(\d+)\.downsamples\.\d+\.time_conv\.(\w+)", r"encoder.stages.\1.down.time.\2"),
    (r"decoder\.upsamples\.(\d+)\.upsamples\.\d+\.resample\.1\.(\w+)", r"decoder.stages.\1.up.space.\2"),
    (r"decoder\.upsamples\.(\d+)\.upsamples\.\d+\.time_conv\.(\w+)", r"decoder.stages.\1.up.time.\2"),
    *(
        (rf"(\w+)\.middle\.{place}\.{re.escape(old)}\.(\w+)", rf"\1.middle.block{block}.{new}.\2")
        for place, block in ((0, 1), (2, 2))
        for old, new in RESIDUAL.items()
    ),
    (r"(\w+)\.middle\.1\.to_qkv\.(\w+)", r"\1.middle.attention.qkv.\2"),
    (r"(\w+)\.middle\.1\.proj\.(\w+)", r"\1.middle.attention.projection.\2"),
    (r"(\w+)\.middle\.1\.norm\.(\w+)", r"\1.middle.attention.norm.\2"),
    (r"(encoder|decoder)\.head\.0\.(\w+)", r"\1.head.norm.\2"),
    (r"(encoder|decoder)\.head\.2\.(\w+)", r"\1.head.conv.\2"),
    (r"(encoder|decoder)\.conv1\.(\w+)", r"\1.stem.\2"),
    (r"conv1\.(\w+)", r"to_moments.\1"),
    (r"conv2\.(\w+)", r"from_feature.\1"),
]


GENERATOR_NAMES = [
    (r"x_embedder\.proj1\.weight", "embedding.table"),
    (r"x_embedder\.proj2\.(\w+)", r"embedding.expand.\1"),
    (r"t_embedder\.mlp\.0\.(\w+)", r"ratio.first.\1"),
    (r"t_embedder\.mlp\.2\.(\w+)", r"ratio.second.\1"),
    (r"y_embedder\.embedding_table\.weight", "classes"),
    (r"in_context_posemb", "context"),
    (r"blocks\.(\d+)\.norm([12])\.weight", r"blocks.\1.norm\2.gain"),
    (r"blocks\.(\d+)\.attn\.q_norm\.weight", r"blocks.\1.attention.query_norm.gain"),
    (r"blocks\.(\d+)\.attn\.k_norm\.weight", r"blocks.\1.attention.key_norm.gain"),
    (r"blocks\.(\d+)\.attn\.qkv\.(\w+)", r"blocks.\1.attention.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"blocks.\1.attention.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.w12\.(\w+)", r"blocks.\1.mlp.gate_and_up.\2"),
    (r"blocks\.(\d+)\.mlp\.w3\.(\w+)", r"blocks.\1.mlp.down.\2"),
    (r"blocks\.(\d+)\.adaLN_modulation\.1\.(\w+)", r"blocks.\1.modulation.\2"),
    (r"final_layer\.norm_final\.weight", "head.norm.gain"),
    (r"final_layer\.linear\.(\w+)", r"head.linear.\1"),
    (r"final_layer\.adaLN_modulation\.1\.(\w+)", r"head.modulation.\1"),
]
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
        ours = _rename(name, TOKENIZER_NAMES, "tokenizer")
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
        ours = _rename(str(name).removeprefix("net."), GENERATOR_NAMES, "class-conditional generator")
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


def _rename(name: str, names: Sequence[tuple[str, str]], kind: str) -> str:
    for pattern, replacement in names:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise ValueError(f"the weights hold {name!r}, which no released {kind} has")
