"""Gradients of several processes are averaged, in buckets of one order, while the backward pass goes on."""

import pytest
import torch
from torch import nn

from grncli.runtime.processes import Processes
from grncli.training import gradient_averaging
from grncli.training.gradient_averaging import GradientAverager

LAYERS = 4


class Twins(Processes):
    """One of two processes, whose twin has three times its gradients; notes what is sent."""

    def __init__(self):
        super().__init__(0, 2)
        self.sent = []

    def start_sum(self, numbers):
        self.sent.append(numbers.clone())
        numbers.mul_(4)
        return self


@pytest.fixture
def network(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(gradient_averaging, "ON_THEIR_WAY", LAYERS)
    monkeypatch.setattr(gradient_averaging, "BUCKET_BYTES", 1)  # a bucket for each parameter
    return nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(LAYERS)))


@pytest.fixture
def twins(monkeypatch):
    monkeypatch.setattr(Twins, "wait", lambda self: None)
    return Twins()


def backward(network, averager=None):
    if averager is not None:
        averager.expect()
    network(torch.ones(1, 2)).sum().backward()


def gradients(network):
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def own_gradients(network):
    backward(network)
    own = gradients(network)
    network.zero_grad()
    return own


def assert_doubled(network, own):
    torch.testing.assert_close(gradients(network), [2 * gradient for gradient in own])


@pytest.mark.parametrize("on_their_way", [1, LAYERS])
@pytest.mark.parametrize("bucket_bytes", [1, 40, 1 << 20])
def test_gradients_become_their_mean_whatever_the_buckets(network, twins, monkeypatch, bucket_bytes, on_their_way):
    monkeypatch.setattr(gradient_averaging, "ON_THEIR_WAY", on_their_way)
    monkeypatch.setattr(gradient_averaging, "BUCKET_BYTES", bucket_bytes)
    own = own_gradients(network)
    averager = GradientAverager(network.parameters(), twins)
    for _ in range(2):
        network.zero_grad()
        backward(network, averager)
        averager.finish()
        assert_doubled(network, own)
    numbers = sum(parameter.numel() for parameter in network.parameters())
    assert sum(sent.numel() for sent in twins.sent) == 2 * numbers


def test_the_last_gradients_are_on_their_way_before_the_first_are_computed(network, twins):
    averager = GradientAverager(network.parameters(), twins)
    sent_before = []
    network[0].weight.register_hook(lambda gradient: sent_before.append(len(twins.sent)))
    backward(network, averager)
    assert sent_before == [LAYERS - 1]
    averager.finish()
    assert len(twins.sent) == LAYERS


def test_what_has_no_gradient_in_a_step_is_left_out_and_the_order_stays(network, twins):
    own = own_gradients(network)
    averager = GradientAverager(network.parameters(), twins)
    network[2].requires_grad_(False)
    backward(network, averager)
    assert len(twins.sent) == 1  # later buckets wait for one that is not full
    averager.finish()
    assert network[2].weight.grad is None
    assert_doubled(network, [own[0], own[1], own[3]])
    network[2].requires_grad_(True)
    network.zero_grad()
    backward(network, averager)
    averager.finish()
    assert_doubled(network, own)


def test_only_the_last_piece_of_a_step_is_sent_with_all_that_came_before(network, twins):
    own = own_gradients(network)
    averager = GradientAverager(network.parameters(), twins)
    backward(network)
    network[3].requires_grad_(False)  # has a gradient of the first piece alone
    assert twins.sent == []
    backward(network, averager)
    averager.finish()
    assert len(twins.sent) == LAYERS
    assert_doubled(network, [2 * own[0], 2 * own[1], 2 * own[2], own[3]])


def test_a_step_without_any_gradient_sends_nothing(network, twins):
    averager = GradientAverager(network.parameters(), twins)
    averager.finish()
    assert twins.sent == []


def test_copies_of_no_more_than_a_few_buckets_are_on_their_way(network, twins, monkeypatch):
    monkeypatch.setattr(gradient_averaging, "ON_THEIR_WAY", 2)
    under_way = []
    monkeypatch.setattr(Twins, "wait", lambda self: under_way.append(len(self.sent) - len(under_way)))
    averager = GradientAverager(network.parameters(), twins)
    backward(network, averager)
    averager.finish()
    assert under_way == [2, 2, 2, 1]


def test_parameters_without_elements_hold_nothing_up(network, twins):
    averager = GradientAverager([*network.parameters(), nn.Parameter(torch.empty(0, 2))], twins)
    backward(network, averager)
    assert len(twins.sent) == LAYERS
    averager.finish()
