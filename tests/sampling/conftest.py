"""Tiny generators with drawn weights, as modules and as run directories."""

from dataclasses import asdict

import pytest

from grncli.checkpoint import write_checkpoint
from grncli.models.generator import Generator, GeneratorConfig
from grncli.recipe import dump_recipe
from grncli.tokenizers import tokenizer_identity
from grncli.training.generator_recipe import Bits, GeneratorRecipe, Refinement

SIZES = {"depth": 2, "width": 16, "heads": 2, "bottleneck": 8, "context_tokens": 2, "context_start": 1}


@pytest.fixture(scope="session")
def make_generator(filled):
    def make(prediction="bit", *, classes=3, channels=4, rounds=2, seed=0):
        """A generator that is sure enough of itself to be worth refining."""
        config = GeneratorConfig(**SIZES, prediction=prediction, rounds=rounds, channels=channels, classes=classes)
        network = filled(Generator(config), seed).eval().requires_grad_(False)
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
            tokenizer=tokenizer_identity(tokenizer_run),
            stride=(2, 4, 4),
            labels=labels,
            grids=grids or {"1x4x4": 9},
            fps=fps,
        )
        recipe = GeneratorRecipe(
            network=network.config, bits=bits, refinement=Refinement(target=target), imported={"file": "drawn"}
        )
        write_checkpoint(folder, 0, {"ema": network.state_dict()}, {"step": 0}, asdict(network.config))
        (folder / "recipe.yaml").write_text(dump_recipe(recipe))
        return folder

    return make
