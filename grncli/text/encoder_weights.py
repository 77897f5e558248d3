"""Published weights of text encoders into our networks."""

import re
from collections.abc import Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from grncli.models.minilm import DEPTH, MiniLM
from grncli.models.umt5 import Umt5Config, Umt5Encoder
from grncli.models.unfilled import made_on_meta
from grncli.runtime.errors import CheckpointError
from grncli.runtime.jsonfiles import brief
from grncli.runtime.tensor_files import is_finite, read_released, read_tensors

Network = TypeVar("Network", bound=nn.Module)

# Parts of our network, as Wan's files call them, which the releases use, and as Hugging Face's do.
_UMT5_BLOCK = {
    "attention_norm.gain": ("norm1", "layer.0.layer_norm"),
    "query.weight": ("attn.q", "layer.0.SelfAttention.q"),
    "key.weight": ("attn.k", "layer.0.SelfAttention.k"),
    "value.weight": ("attn.v", "layer.0.SelfAttention.v"),
    "distances.weight": ("pos_embedding.embedding", "layer.0.SelfAttention.relative_attention_bias"),
    "output.weight": ("attn.o", "layer.0.SelfAttention.o"),
    "mlp_norm.gain": ("norm2", "layer.1.layer_norm"),
    "gate.weight": ("ffn.gate.0", "layer.1.DenseReluDense.wi_0"),
    "up.weight": ("ffn.fc1", "layer.1.DenseReluDense.wi_1"),
    "down.weight": ("ffn.fc2", "layer.1.DenseReluDense.wo"),
}
_WAN_EMBEDDING = "token_embedding.weight"
_SHARED_EMBEDDING, _OWN_EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"  # either, or both
_UNUSED_OF_UMT5 = re.compile(rf"decoder\.|lm_head\.|{re.escape(_OWN_EMBEDDING)}")

_MINILM = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "kinds": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
}
_MINILM_BLOCK = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "output": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}
_UNUSED_OF_MINILM = re.compile(r"pooler\.|embeddings\.position_ids")


def read_umt5(files: Sequence[Path], device: torch.device, dtype: torch.dtype) -> Umt5Encoder:
    """The encoder in files of either published layout, frozen; its sizes are those of its tensors.

    Parameters
    ----------
    files : one checkpoint (.pth) or .safetensors file, or all shards of one

    Raises
    ------
    CheckpointError
        If a file is damaged or a pickle of more than data, or tensors are missing, too many, of shapes that do not
        fit each other, or no finite numbers.
    """
    weights, origin = _read(files), _origin(files)
    names = _umt5_names(weights)
    config = _umt5_config(weights, names, origin)
    network = made_on_meta(lambda: Umt5Encoder(config))
    return _fill(network, weights, names, _UNUSED_OF_UMT5, origin, device, dtype)


def read_minilm(files: Sequence[Path], device: torch.device, dtype: torch.dtype) -> MiniLM:
    """MiniLM in its .safetensors file, frozen; CheckpointError if it is damaged or another network."""
    names = {f"{ours}.weight": f"{theirs}.weight" for ours, theirs in _MINILM.items()}
    for number in range(DEPTH):
        for ours, theirs in _MINILM_BLOCK.items():
            names[f"blocks.{number}.{ours}.weight"] = f"encoder.layer.{number}.{theirs}.weight"
    names |= {name.replace(".weight", ".bias"): theirs.replace(".weight", ".bias") for name, theirs in names.items()}
    return _fill(made_on_meta(MiniLM), _read(files), names, _UNUSED_OF_MINILM, _origin(files), device, dtype)


def _origin(files: Sequence[Path]) -> Path:
    """What messages name."""
    return files[0] if len(files) == 1 else files[0].parent


def _read(files: Sequence[Path]) -> dict[str, Any]:
    """What files hold, by name; of safetensors a view of the file, which is read from the disk as it is used."""
    weights: dict[str, Any] = {}
    for file in files:
        weights |= read_tensors(file) if file.suffix == ".safetensors" else read_released(file)
    return weights


def _umt5_names(weights: Mapping[str, Any]) -> dict[str, str]:
    """Our names to those in the layout that weights are in, for as many blocks as there are."""
    wan = _WAN_EMBEDDING in weights
    shared = _SHARED_EMBEDDING if _SHARED_EMBEDDING in weights else _OWN_EMBEDDING
    names = {
        "embedding.weight": _WAN_EMBEDDING if wan else shared,
        "norm.gain": "norm.weight" if wan else "encoder.final_layer_norm.weight",
    }
    blocks = "blocks" if wan else "encoder.block"
    begun = {int(found[1]) for name in weights if (found := re.match(rf"{blocks}\.(\d{{1,4}})\.", str(name)))}
    for number in takewhile(begun.__contains__, count()):
        for ours, (wans, hugging_face) in _UMT5_BLOCK.items():
            names[f"blocks.{number}.{ours}"] = f"{blocks}.{number}.{wans if wan else hugging_face}.weight"
    return names


def _umt5_config(weights: Mapping[str, Any], names: Mapping[str, str], origin: Path) -> Umt5Config:
    """The sizes that a few tensors of the first block tell."""

    def sides(part: str) -> tuple[int, int]:
        weight = weights.get(names.get(part, ""))
        if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.numel():
            raise CheckpointError(
                f"{origin}: holds no matrix {names.get(part, f'for {part}')}, expected the weights of a umT5 encoder"
            )
        return weight.shape[0], weight.shape[1]

    vocabulary, width = sides("embedding.weight")
    (inner, _), (hidden, _) = sides("blocks.0.query.weight"), sides("blocks.0.gate.weight")
    heads = sides("blocks.0.distances.weight")[1]
    if inner % heads:
        raise CheckpointError(f"{origin}: has {heads} heads for queries of width {inner}, expected a divisor")
    depth = len({name.split(".")[1] for name in names if name.startswith("blocks.")})
    return Umt5Config(
        vocabulary=vocabulary, depth=depth, width=width, heads=heads, head_width=inner // heads, hidden=hidden
    )


def _fill(
    network: Network,
    weights: dict[str, Any],
    names: Mapping[str, str],
    unused: re.Pattern[str],
    origin: Path,
    device: torch.device,
    dtype: torch.dtype,
) -> Network:
    """A network made on the meta device with its weights, which leave ``weights`` one by one.

    Parameters
    ----------
    names : of the network's tensors, to those in ``weights``
    unused : what names may begin with that the network has no use for
    """
    remedy = "get the encoder again"
    wanted = network.state_dict()
    for key, tensor in wanted.items():
        weight = weights.get(names[key])
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            raise CheckpointError(f"{origin}: holds no weights named {names[key]}; {remedy}")
        if weight.shape != tensor.shape:
            shapes = f"{list(weight.shape)}, expected {list(tensor.shape)}"
            raise CheckpointError(f"{origin}: {names[key]} has the shape {shapes}; {remedy}")
    further = [name for name in weights.keys() - set(names.values()) if not unused.match(str(name))]
    if further:
        first = brief(min(map(str, further)))
        raise CheckpointError(f"{origin}: holds {first}, which the encoder has no place for; {remedy}")
    filled = {}
    for key in wanted:
        filled[key] = weights.pop(names[key]).to(device=device, dtype=dtype)
        if not is_finite(filled[key]):
            raise CheckpointError(f"{origin}: {names[key]} has values that are no finite numbers; {remedy}")
    network.load_state_dict(filled, assign=True)
    return network.eval().requires_grad_(False)
