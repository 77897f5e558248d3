"""What is applied to networks from outside changes neither their numbers nor the names of their weights."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from grncli.models import products
from grncli.models.class_transformer import Block
from grncli.models.layers import ResidualBlock
from grncli.runs.tokenizer_recipe import Training
from grncli.training.wrapping import wrap_generator, wrap_tokenizer

CHECKPOINTED = Training(activation_checkpointing=True)


@pytest.fixture
def generator(make_generator):
    return lambda: make_generator().train().requires_grad_(True)


def inputs(network):
    generator = torch.Generator().manual_seed(0)
    shape = (2, network.config.codec.token_channels, 1, 3, 4)
    state = torch.randint(network.config.codec.categories, shape, generator=generator)
    return state, torch.tensor([0.3, 0.7]), torch.tensor([0, 1])


def gradients(network, arguments):
    network.zero_grad()
    output = network(*arguments)
    F.mse_loss(output, torch.zeros_like(output)).backward()
    return {
        name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None
    }


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def count_calls(monkeypatch, kind):
    """Forward passes of all modules of a kind."""
    calls, forward = [], kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *inputs: calls.append(self) or forward(self, *inputs))
    return calls


def test_checkpointed_blocks_of_a_generator_run_again_with_the_same_gradients(generator, monkeypatch):
    network, calls = generator(), count_calls(monkeypatch, Block)
    kept = gradients(network, inputs(network))
    assert len(calls) == len(network.blocks)
    wrap_generator(network, CHECKPOINTED)
    assert_equal(gradients(network, inputs(network)), kept)
    assert len(calls) == 3 * len(network.blocks)


def test_checkpointed_blocks_of_a_tokenizer_run_again_with_the_same_gradients(make_tokenizer, drawn, monkeypatch):
    network, calls = make_tokenizer().train(), count_calls(monkeypatch, ResidualBlock)
    clips = (drawn((1, 3, 5, 16, 16), 0),)
    kept = gradients(network, clips)
    once = len(calls)
    wrap_tokenizer(network, CHECKPOINTED)
    assert_equal(gradients(network, clips), kept)
    assert len(calls) == 3 * once


def test_checkpointed_blocks_run_once_without_gradients(generator, monkeypatch):
    network, calls = generator(), count_calls(monkeypatch, Block)
    wrap_generator(network, CHECKPOINTED)
    with torch.inference_mode():
        network(*inputs(network))
    assert len(calls) == len(network.blocks)


def test_a_copy_of_a_checkpointed_network_has_its_own_weights(generator):
    network = generator()
    wrap_generator(network, CHECKPOINTED)
    other = copy.deepcopy(network)
    before = other(*inputs(network))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.equal(other(*inputs(network)), before)
    assert other.state_dict().keys() == generator().state_dict().keys()


@pytest.mark.parametrize(
    ("make", "wrap", "compiled"),
    [
        ("make_generator", wrap_generator, lambda network: list(network.blocks)),
        ("make_tokenizer", wrap_tokenizer, lambda network: [network.encoder, network.decoder]),
    ],
    ids=["generator", "tokenizer"],
)
def test_what_costs_most_is_compiled_on_request(request, monkeypatch, make, wrap, compiled):
    seen = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: seen.append(self))
    network = request.getfixturevalue(make)()
    wrap(network, Training())
    assert seen == []
    wrap(network, Training(compile=True))
    assert seen == compiled(network)


@pytest.mark.parametrize("fast", [False, True])
def test_compiled_and_checkpointed_blocks_have_the_same_gradients(generator, monkeypatch, fast):
    monkeypatch.setattr(products, "_fast", fast)
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_module(self, backend="eager"))
    network = generator()
    names, kept = list(network.state_dict()), gradients(network, inputs(network))
    wrap_generator(network, Training(activation_checkpointing=True, compile=True))
    compiled = gradients(network, inputs(network))
    if not fast:
        assert_equal(compiled, kept)
    # Rotations as complex products are not compiled, so that queries and keys round otherwise.
    torch.testing.assert_close(compiled, kept, rtol=1e-5, atol=1e-6)
    assert list(network.state_dict()) == names
