"""Reading the released checkpoints: their parameter names in ours, and the network's sizes from the weights alone."""

import re
from collections.abc import Mapping

from torch import Tensor

from grncli.models.tokenizer import TokenizerConfig

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


def tokenizer_weights(released: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released tokenizer's weights under our names, norm gains as vectors, in float32.

    Raises
    ------
    ValueError
        If a name is not of the released layout.
    """
    weights = {}
    for name, tensor in released.items():
        ours = _rename(name)
        if ours.endswith(".gamma"):
            ours, tensor = ours.removesuffix("gamma") + "gain", tensor.flatten()
        weights[ours] = tensor.float().contiguous()
    return weights


def tokenizer_config(weights: Mapping[str, Tensor], *, attention: bool = True) -> TokenizerConfig:
    """The sizes of the network that ``weights`` (under our names) belong to.

    Raises
    ------
    ValueError
        If the weights of a layer that tells a size are missing.
    """

    def count(pattern: str) -> int:
        return 1 + max((int(m[1]) for name in weights if (m := re.match(pattern, name))), default=-1)

    try:
        encoder_width, patches = weights["encoder.stem.weight"].shape[:2]
        decoder_width = weights["decoder.head.conv.weight"].shape[1]
        stages = count(r"encoder\.stages\.(\d+)\.")
        widths = [weights[f"encoder.stages.{i}.blocks.0.conv1.weight"].shape[0] for i in range(stages)]
        return TokenizerConfig(
            channels=weights["from_feature.weight"].shape[0],
            patch=round((patches / 3) ** 0.5),
            encoder_width=encoder_width,
            decoder_width=decoder_width,
            multipliers=tuple(width // encoder_width for width in widths),
            encoder_blocks=count(r"encoder\.stages\.0\.blocks\.(\d+)\."),
            decoder_blocks=count(r"decoder\.stages\.0\.blocks\.(\d+)\."),
            halve_space=tuple(i + 1 for i in range(stages) if f"encoder.stages.{i}.down.space.weight" in weights),
            halve_time=tuple(i + 1 for i in range(stages) if f"encoder.stages.{i}.down.time.weight" in weights),
            attention=attention and "encoder.middle.attention.qkv.weight" in weights,
        )
    except KeyError as missing:
        raise ValueError(f"the weights have no {missing}") from None


def _rename(name: str) -> str:
    for pattern, replacement in TOKENIZER_NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return match.expand(replacement)
    raise ValueError(f"the weights hold {name!r}, which no released tokenizer has")
