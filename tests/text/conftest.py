"""A small umT5 in the published layouts, and a sentencepiece model for it."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

SENTENCES = ["a red star on the blue circle", "the green square", "a cloudy Thursday café", "two red circles"] * 20
DEPTH, WIDTH, HEADS, HIDDEN = 2, 32, 2, 48
WAN_BLOCK = {
    "norm1": (WIDTH,),
    "attn.q": (WIDTH, WIDTH),
    "attn.k": (WIDTH, WIDTH),
    "attn.v": (WIDTH, WIDTH),
    "attn.o": (WIDTH, WIDTH),
    "pos_embedding.embedding": (32, HEADS),
    "norm2": (WIDTH,),
    "ffn.gate.0": (HIDDEN, WIDTH),
    "ffn.fc1": (HIDDEN, WIDTH),
    "ffn.fc2": (WIDTH, HIDDEN),
}
HUGGING_FACE_BLOCK = [
    "layer.0.layer_norm",
    *(f"layer.0.SelfAttention.{name}" for name in ("q", "k", "v", "o", "relative_attention_bias")),
    "layer.1.layer_norm",
    *(f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")),
]


@pytest.fixture(scope="session")
def spiece():
    """Bytes of a sentencepiece model with umT5's special tokens and byte fallback."""

    def train(**options):
        model = io.BytesIO()
        special = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES),
            model_writer=model,
            vocab_size=330,
            hard_vocab_limit=False,
            byte_fallback=True,
            minloglevel=2,
            **special | options,
        )
        return model.getvalue()

    return train


@pytest.fixture(scope="session")
def umt5_weights():
    """Weights of a small umT5 in the layout of Wan's files."""
    generator = np.random.default_rng(0)

    def draw(*shape):
        spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
        values = generator.standard_normal(shape) * spread + (len(shape) == 1)
        return torch.from_numpy(values.astype(np.float32))

    blocks = {f"blocks.{n}.{name}.weight": draw(*shape) for n in range(DEPTH) for name, shape in WAN_BLOCK.items()}
    return {"token_embedding.weight": draw(400, WIDTH), "norm.weight": draw(WIDTH)} | blocks


@pytest.fixture(scope="session")
def in_hugging_face_layout():
    """The same weights under Hugging Face's names."""

    def rename(weights):
        names = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
        for n in range(DEPTH):
            for wan, theirs in zip(WAN_BLOCK, HUGGING_FACE_BLOCK, strict=True):
                names[f"blocks.{n}.{wan}.weight"] = f"encoder.block.{n}.{theirs}.weight"
        return {names[name]: tensor for name, tensor in weights.items()}

    return rename


@pytest.fixture
def release(tmp_path, umt5_weights, spiece):
    """A folder in the layout of the generators' releases; gives the one with the weights."""
    folder = tmp_path / "umt5-xxl"
    (folder / "umt5-xxl").mkdir(parents=True)
    torch.save(umt5_weights, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    (folder / "umt5-xxl" / "spiece.model").write_bytes(spiece())
    return folder


@pytest.fixture
def hugging_face(tmp_path, umt5_weights, in_hugging_face_layout, spiece):
    """A folder in Hugging Face's layout, of one file."""
    folder = tmp_path / "google-umt5"
    folder.mkdir()
    save_file(in_hugging_face_layout(umt5_weights), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "umt5"}))
    (folder / "spiece.model").write_bytes(spiece())
    return folder
