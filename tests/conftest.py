"""Small networks with known weights, and where to find the outputs of the released code."""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from safetensors.torch import load_file
from torch import Tensor, nn

from grncli.models.class_transformer import ClassTransformer, ClassTransformerConfig
from grncli.models.text_transformer import TextTransformer, TextTransformerConfig
from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.runs.checkpoint import write_checkpoint
from grncli.runs.generator_recipe import Bits, GeneratorRecipe, Refinement, Task, TextConditioning
from grncli.runs.recipe import dump_recipe
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.runs.tokenizers import open_tokenizer

settings.register_profile("shared machine", deadline=None)  # a busy core makes any example slow
settings.load_profile("shared machine")

DATA = Path(__file__).parent / "data"
TINY = {"channels": 4, "encoder_width": 4, "decoder_width": 4}
SHALLOW = {"multipliers": (1, 1), "halve_space": (1,), "halve_time": (1,), "encoder_blocks": 1, "decoder_blocks": 1}
TINY_GENERATOR = {"depth": 2, "width": 16, "heads": 2, "bottleneck": 8, "in_context_tokens": 2, "in_context_start": 1}
TINY_TEXT_GENERATOR = {"depth": 2, "width": 24, "heads": 2, "key_value_heads": 1, "hidden": 32, "text_width": 5}
TINY_TEXT_GENERATOR |= {"rounds": 2, "channels": 4}
TINY_TEXT = {"depth": 2, "width": 16, "heads": 2, "key_value_heads": 1, "hidden": 32, "rounds": 2, "channels": 4}
RELEASED_RESIDUAL = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}


class MeanColour(nn.Module):
    """An image encoder: the mean of each colour, 0 to 1."""

    def forward(self, pictures: Tensor) -> Tensor:
        assert pictures.dtype == torch.uint8
        return pictures.float().flatten(2).mean(2) / 255


class NamedColours(nn.Module):
    """A text encoder for `MeanColour`: the colours that a text names, less those that it names after "no"."""

    def forward(self, texts: list[str]) -> Tensor:
        colours = torch.zeros(len(texts), 3)
        for row, text in enumerate(texts):
            for column, name in enumerate(["red", "green", "blue"]):
                if name in text:
                    colours[row, column] = -1.0 if "no " + name in text else 1.0
        return colours


def draw(shape: tuple[int, ...], seed: int, low: float = -1, high: float = 1) -> Tensor:
    """Uniform float32 numbers that no version of PyTorch changes."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32))


def fill(module: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter with numpy, in the order of its sorted name: gains near one, the rest normal."""
    generator = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            noise = torch.from_numpy(generator.standard_normal(tuple(parameter.shape)).astype(np.float32))
            spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.copy_(noise * spread + (1 if name.endswith("gain") else 0))
    return module


def tiny_tokenizer(rounds: int | None = 4, seed: int = 0, **config: object) -> Tokenizer:
    """A network of width 4 with drawn weights."""
    return fill(Tokenizer(TokenizerConfig(**{**TINY, **config}), rounds), seed).eval()


def released_name(name: str, network: Tokenizer) -> str:
    """The name that a parameter of ours has in the released layout."""
    name = re.sub(r"gain$", "gamma", name)
    for ours, theirs in RELEASED_RESIDUAL.items():
        name = re.sub(rf"(blocks\.\d+|block[12])\.{ours}\.", rf"\1.{theirs}.", name)
    name = name.replace("middle.block1.", "middle.0.").replace("middle.block2.", "middle.2.")
    name = name.replace("middle.attention.", "middle.1.").replace(".1.qkv.", ".1.to_qkv.")
    name = name.replace(".1.projection.", ".1.proj.").replace("stem.", "conv1.")
    name = name.replace("head.norm.", "head.0.").replace("head.conv.", "head.2.")
    name = re.sub(r"^to_moments\.", "conv1.", re.sub(r"^from_feature\.", "conv2.", name))
    for part, way, blocks in (
        ("encoder", "down", network.config.encoder_blocks),
        ("decoder", "up", network.config.decoder_blocks),
    ):
        stage = rf"{part}\.stages\.(\d+)\."
        folder = rf"{part}.{way}samples.\1.{way}samples."
        name = re.sub(rf"{stage}blocks\.(\d+)\.", rf"{folder}\2.", name)
        name = re.sub(rf"{stage}{way}\.space\.", rf"{folder}{blocks}.resample.1.", name)
        name = re.sub(rf"{stage}{way}\.time\.", rf"{folder}{blocks}.time_conv.", name)
    return name


def released_layout(network: Tokenizer) -> dict[str, Tensor]:
    """The weights of a network as a released file holds them: its names, and norm gains with trailing ones."""
    released = {}
    for name, tensor in network.state_dict().items():
        if name.endswith("gain"):
            tensor = tensor.reshape(-1, *[1] * (2 if "attention" in name else 3))
        released[released_name(name, network)] = tensor.clone()
    return released


def write_run(folder: Path, network: nn.Module, recipe: TokenizerRecipe | GeneratorRecipe) -> Path:
    """A run directory of a network with drawn weights, as an import leaves it."""
    write_checkpoint(folder, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(network.config))
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    return folder


@pytest.fixture(autouse=True, scope="module")
def one_thread(request):
    """Networks this small wait for their threads more than they gain by them, most of all on a busy machine."""
    before = torch.get_num_threads()
    if request.node.get_closest_marker("bench") is None:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def drawn() -> Callable[..., Tensor]:
    return draw


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Tokenizer]:
    return tiny_tokenizer


@pytest.fixture(scope="session")
def in_released_layout() -> Callable[[Tokenizer], dict[str, Tensor]]:
    return released_layout


@pytest.fixture(scope="session")
def filled() -> Callable[..., nn.Module]:
    return fill


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return DATA


@pytest.fixture(scope="session")
def golden() -> dict[str, Tensor]:
    return load_file(DATA / "tokenizer_golden.safetensors")


@pytest.fixture(scope="session")
def save_script(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves a module as TorchScript."""

    def save(module: nn.Module, name: str = "network.pt") -> Path:
        file = tmp_path_factory.mktemp("scripts") / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript as such
            torch.jit.script(module).save(file)
        return file

    return save


@pytest.fixture(scope="session")
def colour_networks(save_script: Callable[..., Path]) -> tuple[Path, Path]:
    """Files of an image and a text encoder, whose directions are colours."""
    return save_script(MeanColour(), "image.pt"), save_script(NamedColours(), "text.pt")


@pytest.fixture(scope="session")
def release_fixtures() -> Path:
    """Directory with small checkpoints in the released layouts and the released code's outputs on them."""
    folder = os.environ.get("GRN_FIXTURES")
    if not folder:
        pytest.skip("GRN_FIXTURES is not set: it names the directory with the release's compatibility fixtures")
    return Path(folder)


@pytest.fixture(scope="session")
def make_generator(filled):
    def make(prediction="bit", *, classes=3, channels=4, rounds=2, seed=0):
        """A generator that is sure enough of itself to be worth refining."""
        config = ClassTransformerConfig(
            **TINY_GENERATOR, prediction=prediction, rounds=rounds, channels=channels, classes=classes
        )
        network = filled(ClassTransformer(config), seed).eval().requires_grad_(False)
        network.head.linear.weight *= 4
        return network

    return make


@pytest.fixture(scope="session")
def make_run(make_tokenizer: Callable[..., Tokenizer]) -> Callable[..., Path]:
    def make(folder: Path, rounds: int | None = 4, seed: int = 0) -> Path:
        """A run directory whose tokenizer has stride 2x4x4 and drawn weights."""
        network = make_tokenizer(rounds, seed, **SHALLOW)
        return write_run(
            folder, network, TokenizerRecipe(network=network.config, rounds=rounds, imported={"file": "drawn"})
        )

    return make


@pytest.fixture(scope="session")
def make_text_generator(filled):
    def make(prediction="bit", *, seed=0, **sizes):
        """One for texts whose features are 5 wide."""
        config = TextTransformerConfig(**{**TINY_TEXT_GENERATOR, **sizes}, prediction=prediction)
        network = filled(TextTransformer(config), seed).eval().requires_grad_(False)
        network.head.linear.weight *= 4
        return network

    return make


@pytest.fixture(scope="session")
def make_generator_run(make_generator):
    def make(folder, tokenizer_run, *, grids=None, target="absolute", fps=None, **options):
        """A run directory; labels are ant, bee, cat."""
        network = make_generator(**options)
        labels = ("ant", "bee", "cat")[: network.config.classes]
        bits = Bits(
            tokenizer=open_tokenizer(tokenizer_run).identity,
            stride=(2, 4, 4),
            labels=labels,
            grids=grids or {"1x4x4": 9},
            fps=fps,
        )
        recipe = GeneratorRecipe(
            network=network.config, bits=bits, refinement=Refinement(target=target), imported={"file": "drawn"}
        )
        return write_run(folder, network, recipe)

    return make


@pytest.fixture(scope="session")
def make_text_run(make_text_generator):
    def make(folder, tokenizer_run, *, attention="text-only", width=384, grids=None, encoder=None, seed=0, **network):
        """A run of a generator of texts, whose templates differ by task."""
        sizes = {**TINY_TEXT, "attention": attention, "text_width": width, **network}
        generator = make_text_generator(seed=seed, **sizes)
        bits = Bits(
            tokenizer=open_tokenizer(tokenizer_run).identity,
            stride=(2, 4, 4),
            labels=(),
            grids=grids or {"1x4x4": 9},
            fps=6.0,
        )
        text = TextConditioning(
            encoder=encoder or {},
            image=Task(prefix="<T2I>", guidance=3.0, temperature=1.1),
            clip=Task(prefix="<T2V>", suffix=" Good.", negative_prompt="blurred", guidance=4.0),
            first_frame=Task(prefix="<I2V>", negative_prompt="blurred", guidance=3.5),
            cosine_end=0.95,
        )
        recipe = GeneratorRecipe(network=generator.config, bits=bits, text=text, imported={"file": "drawn"})
        return write_run(folder, generator, recipe)

    return make
