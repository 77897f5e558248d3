"""Starting from samples that are there: masks, shares, first frames, and what does not fit."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from grncli.hbq import index_to_bits, unpack
from grncli.runtime.errors import StoreError, StoreMismatch, UsageError
from grncli.sampling.starting import Start, read_mask
from grncli.store import Fingerprint, open_part

TOKENIZER = {"name": "toy", "sha256": "3f9c" * 16}
STRIDE = (2, 4, 4)


def write_store(
    path, grids=((1, 4, 4),), rounds=2, channels=4, labels=("bee", "wasp"), sha=TOKENIZER["sha256"], finish=True
):
    fingerprint = Fingerprint(
        rounds=rounds,
        channels=channels,
        stride=STRIDE,
        tokenizer={"name": "toy", "sha256": sha},
        preprocessing={},
        labels=labels,
    )
    with open_part(path, fingerprint) as writer:
        for number, grid in enumerate(grids):
            planes = np.random.default_rng(number).integers(0, 2, (3, *grid, rounds, channels), dtype=np.uint8)
            lines = [{"key": f"{number}-{i}.png", "source": "x"} for i in range(3)]
            writer.append(grid, np.packbits(planes, axis=-1), [0, 1, -1], lines)
        writer.commit(1, "", 1)
        if finish:
            writer.finish()
    return path


@pytest.fixture(params=["ind", "bit"])
def network(request, make_generator):
    return make_generator(request.param)


def start(store, network, keep, grid=(1, 4, 4), **changes):
    options = {"tokenizer": TOKENIZER, "stride": STRIDE, "labels": ("ant", "bee", "cat"), "seed": 1}
    return Start(store, keep, grid, network.config, **{**options, **changes})


def write_mask(path, pixels):
    Image.fromarray((np.asarray(pixels) * 255).astype(np.uint8)).save(path)
    return path


def test_the_known_tokens_are_the_stores_own(tmp_path, network):
    path = write_store(tmp_path / "s.zarr")
    tokens, _ = start(path, network, "0.5").known(4)
    from grncli import open_store

    index = unpack(torch.from_numpy(open_store(path).grid((1, 4, 4)).read([1])), 4, 2)
    wanted = index if network.config.prediction == "ind" else index_to_bits(index, 2)
    assert torch.equal(tokens, wanted[0])


def test_labels_are_matched_by_name(tmp_path, network):
    assert start(write_store(tmp_path / "s.zarr"), network, "0.5").labels == [1, 3, 3]


def test_a_share_holds_that_many_elements_at_random(tmp_path, network):
    begun = start(write_store(tmp_path / "s.zarr", ((1, 16, 16),)), network, "0.3", (1, 16, 16))
    first, second = begun.known(0)[1], begun.known(1)[1]
    assert float(first.float().mean()) == pytest.approx(0.3, abs=0.04)
    assert not torch.equal(first, second)


def test_a_mask_holds_the_tokens_that_are_all_white(tmp_path, network):
    pixels = np.zeros((16, 16))
    pixels[:8, :7] = 1
    mask = write_mask(tmp_path / "m.png", pixels)
    known = start(write_store(tmp_path / "s.zarr"), network, str(mask)).known(0)[1]
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[:2, 0] = True
    assert torch.equal(known, wanted.expand_as(known))


def test_a_mask_may_have_a_pixel_for_each_token(tmp_path):
    mask = write_mask(tmp_path / "m.png", np.eye(4))
    assert torch.equal(read_mask(mask, (1, 4, 4), STRIDE), torch.eye(4).bool())


def test_a_mask_of_another_size_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is 5x6 pixels, expected 16x16"):
        read_mask(write_mask(tmp_path / "m.png", np.ones((6, 5))), (1, 4, 4), STRIDE)


def test_a_mask_that_is_no_picture_is_refused(tmp_path):
    (tmp_path / "m.png").write_text("white")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        read_mask(tmp_path / "m.png", (1, 4, 4), STRIDE)


def test_a_mask_that_never_ends_is_refused(tmp_path):
    os.mkfifo(tmp_path / "m.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("m.png", "zero.png"):
        with pytest.raises(UsageError, match=r"cannot be read as a picture: it is not a plain file"):
            read_mask(tmp_path / name, (1, 4, 4), STRIDE)
    with pytest.raises(UsageError, match="No such file"):
        read_mask(tmp_path / "none.png", (1, 4, 4), STRIDE)


def test_a_mask_too_large_is_refused_from_its_header(tmp_path, monkeypatch):
    monkeypatch.setattr("grncli.sampling.starting.MAX_MASK_PIXELS", 200)
    with pytest.raises(UsageError, match="is 16x16 pixels; at most 200"):
        read_mask(write_mask(tmp_path / "m.png", np.ones((16, 16))), (1, 4, 4), STRIDE)


def test_what_is_transparent_in_a_mask_is_not_white(tmp_path):
    pixels = np.full((4, 4, 2), 255, np.uint8)
    pixels[1:, :, 1] = 0
    Image.fromarray(pixels, "LA").save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", (1, 4, 4), STRIDE).sum(dim=1).tolist() == [4, 0, 0, 0]


@pytest.mark.parametrize("frames", [1, 3])
def test_the_first_frame_of_a_clip_or_a_picture_is_known(tmp_path, network, frames):
    path = write_store(tmp_path / "s.zarr", ((frames, 4, 4),))
    known = start(path, network, "first-frame", (3, 4, 4)).known(0)[1]
    assert known[:, 0].all()
    assert not known[:, 1:].any()


def test_single_frames_have_no_first_frame_to_keep(tmp_path, network):
    with pytest.raises(UsageError, match="single frames"):
        start(write_store(tmp_path / "s.zarr"), network, "first-frame")


@pytest.mark.parametrize("keep", ["0", "1", "1.5", "nan", "missing.png"])
def test_what_is_no_mask_is_refused(tmp_path, network, keep):
    with pytest.raises(UsageError, match="--keep"):
        start(write_store(tmp_path / "s.zarr"), network, keep)


def test_something_must_be_kept(tmp_path, network):
    with pytest.raises(UsageError, match="needs --keep"):
        start(write_store(tmp_path / "s.zarr"), network, None)


@pytest.mark.parametrize(
    "changes",
    [{"sha": "00" * 32}, {"rounds": 1}, {"channels": 6}, {"grids": ((1, 4, 5),)}, {"grids": ((1, 4, 4), (1, 4, 5))}],
)
def test_a_store_that_does_not_fit_is_refused(tmp_path, network, changes):
    with pytest.raises(StoreMismatch, match=r"s\.zarr"):
        start(write_store(tmp_path / "s.zarr", **changes), network, "0.5")


def test_an_incomplete_store_is_refused(tmp_path, network):
    with pytest.raises(StoreError, match="not complete"):
        start(write_store(tmp_path / "s.zarr", finish=False), network, "0.5")


def test_masks_are_told_apart_by_what_they_keep(tmp_path, network):
    path = write_store(tmp_path / "s.zarr")
    masks = [write_mask(tmp_path / f"{i}.png", np.roll(np.eye(4), i % 2, axis=0)) for i in range(3)]
    first, second, third = (start(path, network, str(mask)).kept for mask in masks)
    assert first == third != second


def test_the_finer_rounds_of_a_store_are_left_out(tmp_path, network):
    assert start(write_store(tmp_path / "s.zarr", rounds=4), network, "0.5").known(0)[0].max() < 4
