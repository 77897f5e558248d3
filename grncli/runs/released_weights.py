"""Weights of ours under the released names and in the released shapes: the way back of ``released_names``."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from grncli.models.class_transformer import ClassTransformerConfig
from grncli.models.text_transformer import TextTransformerConfig
from grncli.models.tokenizer import TokenizerConfig
from grncli.models.transformer import Grid, position_embedding
from grncli.runs.kinds import Weights
from grncli.runs.released_names import (
    GENERATOR_NAMES,
    POSITIONS,
    TEXT_BLOCK_NAMES,
    TEXT_NAMES,
    TOKENIZER_NAMES,
    rename,
)
from grncli.runtime.tensor_files import LazyTensor

CHUNKS = {28: 7, 36: 6, 4: 2}  # of the released depths; the blocks of others are one chunk
_OUR_TOKENIZER_NAMES = {ours: released for released, ours in TOKENIZER_NAMES.items()}
_OUR_GENERATOR_NAMES = {ours: released for released, ours in GENERATOR_NAMES.items()}


def released_tokenizer(weights: Weights, config: TokenizerConfig) -> Weights:
    """A tokenizer's weights as its released files hold them: norm gains have a dimension for each of the pixels'."""
    ways, blocks = {"encoder": "down", "decoder": "up"}, vars(config)
    released = {}
    for name, tensor in weights.items():
        part = name.partition(".")[0]
        known = {"way": ways.get(part), "last": blocks.get(f"{part}_blocks")}
        theirs = rename(name, _OUR_TOKENIZER_NAMES, "tokenizer of ours", **known)
        if theirs.endswith(".gain"):
            dimensions = 2 if ".attention." in name else 3
            theirs = theirs.removesuffix("gain") + "gamma"
            tensor = _made(partial(_with_dimensions, dimensions), tensor)
        released[theirs] = tensor
    return released


def released_class_generator(weights: Weights, config: ClassTransformerConfig, grid: Grid) -> Weights:
    """A class-conditional generator's weights as its released files hold them, with its fixed positions."""
    released: dict[str, Tensor | LazyTensor] = {POSITIONS: position_embedding(grid, config.width)[None]}
    for name, tensor in weights.items():
        theirs = f"net.{rename(name, _OUR_GENERATOR_NAMES, 'class-conditional generator of ours')}"
        if name == "embedding.table":  # a 1x1 convolution there
            tensor = _made(lambda x: x.t()[..., None, None], tensor)
        elif name == "embedding.expand.weight":
            tensor = _made(lambda x: x[..., None, None], tensor)
        elif name == "context":
            tensor = _made(lambda x: x[None], tensor)
        released[theirs] = tensor
    return released


def released_text_generator(weights: Weights, config: TextTransformerConfig) -> Weights:
    """A text-conditional generator's weights as its released files hold them, blocks in chunks."""
    names = {ours: (theirs, "") for ours, theirs in TEXT_NAMES.items()}
    in_chunk = config.depth // CHUNKS.get(config.depth, 1)
    for number in range(config.depth):
        block = f"block_chunks.{number // in_chunk}.module.{number % in_chunk}."
        names |= {f"blocks.{number}.{ours}": (theirs, block) for ours, theirs in TEXT_BLOCK_NAMES.items()}
    rows = config.head_width * config.key_value_heads
    released: dict[str, Tensor | LazyTensor] = {}
    for name, tensor in weights.items():
        theirs, block = names[name]
        if name == "embedding.table":
            tensor = _made(lambda x: x.t(), tensor)
        if len(theirs) == 1:
            released[block + theirs[0]] = tensor
            continue
        # Queries, keys and values, or gate and up.
        sizes = [config.width, rows, rows] if len(theirs) == 3 else [config.hidden, config.hidden]
        for place, each in enumerate(theirs):
            released[block + each] = _made(partial(_part, sizes, place), tensor)
    return released


def _made(change: Callable[[Tensor], Tensor], tensor: Tensor | LazyTensor) -> LazyTensor:
    return LazyTensor.of(lambda parts: change(parts[0]), [tensor])


def _part(sizes: Sequence[int], place: int, joined: Tensor) -> Tensor:
    return joined.split_with_sizes(list(sizes))[place]


def _with_dimensions(trailing: int, gain: Tensor) -> Tensor:
    return gain.reshape(-1, *[1] * trailing)
