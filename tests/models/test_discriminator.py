"""Discriminators: the published network, what a logit may see, and the hinge losses by hand."""

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from grncli.models.discriminator import ClipDiscriminator, PatchDiscriminator, discriminator_loss, generator_loss

BOTH = [PatchDiscriminator, ClipDiscriminator]
both = pytest.mark.parametrize("kind", BOTH, ids=lambda kind: kind.__name__)


@pytest.mark.parametrize(("kind", "parameters"), [(PatchDiscriminator, 2_765_633), (ClipDiscriminator, 8_293_185)])
def test_the_default_network_has_its_known_size(kind, parameters):
    assert sum(parameter.numel() for parameter in kind().parameters()) == parameters


def test_layers_are_those_of_the_published_network():
    convs = [layer for layer in PatchDiscriminator().main if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == [64, 128, 256, 512, 1]
    assert [conv.stride for conv in convs] == [(2, 2), (2, 2), (2, 2), (1, 1), (1, 1)]
    assert [conv.bias is not None for conv in convs] == [True, False, False, False, True]
    assert {(conv.kernel_size, conv.padding) for conv in convs} == {((4, 4), (1, 1))}


def test_parameters_have_the_published_names():
    weights = [name for name, _ in PatchDiscriminator().named_parameters() if name.endswith("weight")]
    assert weights == [f"main.{place}.weight" for place in (0, 2, 3, 5, 6, 8, 9, 11)]


@both
def test_width_stops_growing_at_eight_times_the_first(kind):
    weights = [layer.weight for layer in kind(width=2, layers=5).main if hasattr(layer, "weight")]
    assert max(len(weight) for weight in weights) == 16


@both
def test_first_weights_are_narrow_normals(kind):
    torch.manual_seed(0)
    for name, parameter in kind(width=32).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
            continue
        assert float(parameter.mean().detach()) == pytest.approx(float(parameter.dim() == 1), abs=0.01)
        assert float(parameter.std().detach()) == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("frames", [1, 5])
def test_patches_of_every_frame_get_logits(drawn, frames):
    assert PatchDiscriminator(width=2)(drawn((2, 3, frames, 32, 43), 0)).shape == (2, 1, frames, 2, 3)


@pytest.mark.parametrize(("frames", "expected"), [(2, 1), (5, 2), (7, 2), (9, 3), (33, 9)])
def test_clips_get_a_logit_for_every_frame_of_the_feature(drawn, frames, expected):
    assert ClipDiscriminator(width=2)(drawn((1, 3, frames, 24, 32), 0)).shape == (1, 1, expected, 1, 2)


@both
def test_the_least_size_is_enough_for_training_with_a_batch_of_one(drawn, kind):
    for layers in (1, 2, 3):
        network = kind(width=2, layers=layers)
        logits = network(drawn((1, 3, *network.least), 0))
        logits.sum().backward()
        assert logits.shape == (1, 1, 1, 1, 1)
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("kind", "size", "least"),
    [
        (PatchDiscriminator, (1, 23, 64), "1x24x24"),
        (PatchDiscriminator, (1, 64, 23), "1x24x24"),
        (ClipDiscriminator, (1, 64, 64), "2x24x24"),
        (ClipDiscriminator, (5, 23, 64), "2x24x24"),
    ],
)
def test_what_is_too_small_is_told_with_the_least_size(drawn, kind, size, least):
    with pytest.raises(ValueError, match=rf"was given {'x'.join(map(str, size))} .*, it needs {least} or more"):
        kind(width=2)(drawn((1, 3, *size), 0))


def test_frames_are_judged_on_their_own(drawn):
    network = PatchDiscriminator(width=4).eval()
    x = drawn((1, 3, 3, 32, 32), 0)
    alone = torch.cat([network(x[:, :, place : place + 1]) for place in range(3)], dim=2)
    torch.testing.assert_close(network(x), alone)


def test_clips_are_judged_by_the_order_of_their_frames(drawn):
    network = ClipDiscriminator(width=4).eval()
    x = drawn((1, 3, 5, 32, 32), 0)
    assert not torch.allclose(network(x), network(x.flip(2)).flip(2))


@pytest.mark.parametrize(("kind", "frames", "seen"), [(PatchDiscriminator, 1, 1), (ClipDiscriminator, 81, 31)])
def test_a_logit_sees_a_patch_of_known_size(kind, frames, seen):
    network = kind(width=1).eval()
    for parameter in network.parameters():
        nn.init.ones_(parameter)  # so that nothing cancels and no gradient stops
    x = torch.ones(1, 3, frames, 128, 128, requires_grad=True)
    logits = network(x)
    logits[0, 0, logits.shape[2] // 2, 7, 7].backward()
    places = x.grad[0, 0].nonzero()
    assert (places.amax(dim=0) - places.amin(dim=0) + 1).tolist() == [seen, 70, 70]


@both
def test_training_judges_by_the_batch_and_evaluation_by_what_was_seen(drawn, kind):
    network = kind(width=4)
    one, other = drawn((1, 3, 5, 32, 32), 0), 0.1 * drawn((1, 3, 5, 32, 32), 1)
    together = torch.cat([one, other])
    assert not torch.allclose(network(together)[:1], network(one))
    network.eval()
    torch.testing.assert_close(network(together)[:1], network(one))


@both
def test_running_statistics_come_back_from_a_checkpoint(drawn, kind):
    network = kind(width=4)
    for seed in range(3):
        network(drawn((2, 3, 5, 32, 32), seed))
    restored = kind(width=4)
    restored.load_state_dict(load(save(network.state_dict())))
    x = drawn((1, 3, 5, 32, 32), 9)
    assert torch.equal(restored.eval()(x), network.eval()(x))
    assert torch.equal(restored.train()(x), network.train()(x))


def test_hinge_loss_halves_the_sum_of_the_means():
    real, fake = torch.tensor([2.0, 0.5, -1.0, 1.0]), torch.tensor([[-3.0, 0.0]])
    assert discriminator_loss(real, fake).item() == ((0 + 0.5 + 2 + 0) / 4 + (0 + 1) / 2) / 2


def test_hinge_loss_leaves_alone_what_is_judged_well():
    real, fake = torch.tensor([1.5, 3.0], requires_grad=True), torch.tensor([-1.5, -3.0], requires_grad=True)
    loss = discriminator_loss(real, fake)
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


def test_the_tokenizer_wants_high_logits():
    assert generator_loss(torch.tensor([[1.0, -2.0, 4.0]])).item() == -1


@both
def test_a_few_steps_tell_real_from_fake(drawn, kind):
    torch.manual_seed(0)
    network = kind(width=4)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    real, fake = drawn((2, 3, 5, 32, 32), 0), drawn((2, 3, 5, 4, 4), 1).repeat_interleave(8, 3).repeat_interleave(8, 4)
    for _ in range(10):
        loss = discriminator_loss(network(real), network(fake))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert network(real).mean() > network(fake).mean() + 1
