"""The tokenizer's objective: the bits that its decoder gets wrong in training."""

import pytest
import torch
from torch import Tensor

from grncli.models.tokenizer import Tokenizer, TokenizerConfig
from grncli.runs.tokenizer_recipe import TokenizerRecipe
from grncli.training.objective import Batch
from grncli.training.reconstruction_objective import ReconstructionObjective

NETWORK = TokenizerConfig(
    channels=8,
    patch=4,
    encoder_width=8,
    decoder_width=8,
    multipliers=(1,),
    encoder_blocks=1,
    decoder_blocks=1,
    halve_space=(),
    halve_time=(),
    attention=False,
)


class NoMedia:
    """A loader of nothing."""

    def fixed(self, most: int) -> dict[str, list[Tensor]]:
        return {}

    def held_out(self) -> dict[str, list[Tensor]]:
        return {}


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch):
    """What the tokenizer gets wrong in a step, uint8 ``[B, C, T, h, w]`` or None, given the recipe's share."""
    seen: list[Tensor | None] = []

    def forward(self: Tokenizer, x: Tensor, rounds: int | None = None, flips: Tensor | None = None) -> Tensor:
        seen.append(flips)
        return x.float()

    monkeypatch.setattr(Tokenizer, "forward", forward)

    def of(bit_errors: float, numbers: Tensor, step: int = 0) -> Tensor | None:
        recipe = TokenizerRecipe(network=NETWORK, bit_errors=bit_errors)
        loader = NoMedia()
        tokenizer = Tokenizer(NETWORK, 4)
        objective = ReconstructionObjective(recipe, tokenizer, loader, None, torch.device("cpu"))  # type: ignore[arg-type]
        frames = torch.zeros(len(numbers), 1, 32, 32, 3, dtype=torch.uint8)
        objective.losses(Batch(frames, ("",) * len(numbers), numbers=numbers), step)
        return seen[-1]

    return of


def test_each_sample_gets_a_share_of_its_bits_wrong_between_none_and_the_recipes(flips) -> None:
    wrong = flips(0.2, torch.arange(400))
    shares = torch.stack([(wrong >> bit) & 1 for bit in range(4)]).float().mean((0, 2, 3, 4, 5))
    assert wrong.shape == (400, 8, 1, 8, 8)
    assert shares.mean().item() == pytest.approx(0.1, abs=0.01)
    assert shares.min().item() < 0.01
    assert 0.18 < shares.max().item() < 0.22


def test_bits_that_are_wrong_depend_on_the_sample_and_the_step_alone(flips) -> None:
    whole = flips(0.2, torch.arange(8), step=3)
    assert torch.equal(flips(0.2, torch.tensor([5, 2]), step=3), whole[[5, 2]])
    assert not torch.equal(flips(0.2, torch.arange(8), step=4), whole)


def test_without_bit_errors_nothing_is_wrong(flips) -> None:
    assert flips(0.0, torch.arange(8)) is None
