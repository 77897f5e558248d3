"""Clips in parts of bounded memory: how they are cut, that the parts give the whole, and what lives at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from grncli.hbq import quantize
from grncli.models import tokenizer as tokenizer_module
from grncli.models.layers import CausalConv3d
from grncli.models.streaming import History, Part, frames_within, pieces
from grncli.models.tokenizer import Tokenizer, TokenizerConfig, patchify, unpatchify

TIME_STRIDES = {1: (), 2: (2,), 4: (2, 3)}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


# Cutting


@given(st.integers(0, 30), st.integers(1, 12))
def test_pieces_are_the_clip_cut_up(later, frames):
    x = torch.arange(1 + later).view(1, 1, -1, 1, 1)
    cut = list(pieces(x, frames))
    assert torch.equal(torch.cat([part.x for part in cut], dim=2), x)
    lengths = [part.x.shape[2] for part in cut]
    full = [1 + frames, *[frames] * (len(lengths) - 1)]
    assert lengths[:-1] == full[:-1]
    assert 0 < lengths[-1] <= full[-1]
    assert [part.first for part in cut] == [True, *[False] * (len(cut) - 1)]
    assert [part.last for part in cut] == [*[False] * (len(cut) - 1), True]


@given(st.integers(0, 12), st.sampled_from([1, 2]), st.integers(1, 12), st.booleans(), st.booleans())
def test_parts_are_cut_where_their_stage_can_be(units, unit, frames, first, last):
    lone = first and unit > 1
    total = units * unit + lone
    x = torch.arange(total).view(1, 1, -1, 1, 1)
    cut = list(Part(x, first, last).cut(frames, unit))
    lengths = [part.x.shape[2] for part in cut]
    assert sum(lengths) == total
    assert all(length % unit == (lone and not number) for number, length in enumerate(lengths))
    assert all(length <= max(frames, unit) + lone for length in lengths)
    assert not units or max(lengths) - min(lengths) <= unit * len(lengths) + lone
    if total:
        assert torch.equal(torch.cat([part.x for part in cut], dim=2), x)
        assert [part.first for part in cut] == [first, *[False] * (len(cut) - 1)]
        assert [part.last for part in cut] == [*[False] * (len(cut) - 1), last]


def test_frames_are_counted_by_their_widest_activation():
    x = torch.zeros(2, 3, 9, 5, 7)
    assert frames_within(x, 10, 2 * 10 * 5 * 7 * 4) == 4
    assert frames_within(x, 10, 2 * 10 * 5 * 7 * 4 - 1) == 3
    assert frames_within(x, 10, 1) == 1


def test_history_ends_with_the_clip(drawn):
    history, layer = History(), CausalConv3d(1, 1, (3, 1, 1))
    history.extend(layer, drawn((1, 1, 2, 8, 8), 0), 2)
    assert list(history._frames) == [layer]
    history.last = True
    assert history.extend(layer, drawn((1, 1, 2, 8, 8), 0), 2).shape[2] == 4
    assert not history._frames


# Numbers


@pytest.fixture(scope="module")
def networks(make_tokenizer):
    return {time: make_tokenizer(halve_time=stages) for time, stages in TIME_STRIDES.items()}


def encoded_whole(network, x):
    return network._feature(network.encoder(patchify(x, network.config.patch)))


def decoded_whole(network, feature):
    return unpatchify(network.decoder(network.from_feature(feature)), network.config.patch)


each_cut = given(
    time=st.sampled_from(list(TIME_STRIDES)),
    latents=st.sampled_from([0, 1, 2, 4]),
    piece=st.integers(1, 4),
    most=st.integers(1, 1 << 14),
)


@settings(max_examples=30)
@each_cut
def test_features_do_not_depend_on_the_cut(networks, drawn, time, latents, piece, most):
    network, x = networks[time], drawn((2, 3, 1 + latents * time, 16, 32), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "MOST_ENCODED", most)
        feature = network.encode(x, piece=piece)
    whole = encoded_whole(network, x)
    torch.testing.assert_close(feature, whole, atol=1e-5, rtol=0)
    at_an_edge = ((whole * 8).round() / 8 - whole).abs() < 1e-5
    assert torch.equal(quantize(feature, 4)[~at_an_edge], quantize(whole, 4)[~at_an_edge])


@settings(max_examples=30)
@each_cut
def test_pixels_do_not_depend_on_the_cut(networks, drawn, time, latents, piece, most):
    network, feature = networks[time], drawn((2, 4, 1 + latents, 1, 2), 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "MOST_DECODED", most)
        parts = list(network.decode_parts(feature, piece, clamp=False))
    assert sum(part.shape[2] for part in parts) == 1 + latents * time
    torch.testing.assert_close(torch.cat(parts, dim=2), decoded_whole(network, feature), atol=2e-5, rtol=0)


def test_what_fits_is_bit_for_bit_the_whole_pass(networks, drawn):
    x, feature = drawn((2, 3, 17, 16, 32), 0), drawn((2, 4, 5, 1, 2), 1)
    assert torch.equal(networks[4].encode(x), encoded_whole(networks[4], x))
    assert torch.equal(networks[4].decode(feature, clamp=False), decoded_whole(networks[4], feature))


def test_gradients_are_those_of_the_whole_pass(make_tokenizer, drawn, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "MOST_DECODED", 1 << 10)
    network, feature = make_tokenizer(), drawn((1, 4, 4, 1, 2), 0).requires_grad_()
    with torch.enable_grad():
        [streamed] = torch.autograd.grad(network.decode(feature, piece=1, clamp=False).square().sum(), feature)
        [whole] = torch.autograd.grad(decoded_whole(network, feature).square().sum(), feature)
    torch.testing.assert_close(streamed, whole, atol=1e-4, rtol=1e-4)


def test_clips_under_way_do_not_meet(networks, drawn):
    """One network decodes two clips in turns, as two threads may."""
    features = [drawn((1, 4, 5, 1, 2), seed) for seed in (0, 1)]
    alone = [networks[4].decode(feature, piece=1) for feature in features]
    turns = zip(*(networks[4].decode_parts(feature, 1) for feature in features), strict=True)
    for clip, parts in zip(alone, zip(*turns, strict=True), strict=True):
        assert torch.equal(torch.cat(parts, dim=2), clip)


# Memory


def test_frames_come_before_later_features_are_decoded(networks, drawn):
    network, seen = networks[4], []
    hook = network.decoder.stem.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[2]))
    parts = network.decode_parts(drawn((1, 4, 6, 1, 2), 0), 1)
    assert next(parts).shape[2] == 5
    assert seen == [2]
    assert next(parts).shape[2] == 4
    assert seen == [2, 1]
    hook.remove()


class LiveMemory(TorchDispatchMode):
    """The most bytes that were alive at once of tensors made within."""

    def __init__(self):
        super().__init__()
        self.storages = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.storages = {key: kept for key, kept in self.storages.items() if not kept[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.storages.values()))
        return output


@pytest.fixture(scope="module")
def released():
    """The released joint tokenizer: sizes without numbers."""
    with torch.device("meta"):
        network = Tokenizer(TokenizerConfig(channels=64), 4)
        with torch.inference_mode():  # makes the copies of weights for lone frames, which stay
            network.decode(torch.zeros(1, 64, 1, 1, 1))
            network.encode(torch.zeros(1, 3, 1, 16, 16))
    return network


@pytest.fixture(scope="module")
def most_bytes(released):
    def measure(latents, height, width, *, encode=False):
        frames = torch.zeros(1, 1 + 4 * (latents - 1), 16 * height, 16 * width, 3, dtype=torch.uint8, device="meta")
        feature = torch.zeros(1, 64, latents, height, width, device="meta")
        with torch.inference_mode(), LiveMemory() as memory:
            (released.encode_frames(frames) if encode else released.decode_frames(feature))
        return memory.most

    return measure


def test_a_clip_of_480p_decodes_in_bounded_memory(most_bytes):
    """About 2.7 GiB of it is what the convolutions have to remember."""
    assert most_bytes(3, 30, 53) < 4.3 * 2**30
    later_frames, later_features = 8 * 480 * 848 * 3, 2 * 64 * 30 * 53 * 4
    assert most_bytes(5, 30, 53) - most_bytes(3, 30, 53) == later_frames + later_features


def test_a_clip_of_480p_encodes_in_bounded_memory(most_bytes):
    assert most_bytes(3, 30, 53, encode=True) < 2.7 * 2**30
    assert most_bytes(5, 30, 53, encode=True) < 2.7 * 2**30


def test_large_frames_are_encoded_fewer_at_a_time(most_bytes):
    """Five frames of 1024x1024 whole would take 6.5 GiB."""
    assert most_bytes(3, 64, 64, encode=True) < 4.8 * 2**30
