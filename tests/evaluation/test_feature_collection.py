"""Pictures as a network sees them: moments, kept features and scores of classes, by one process or several."""

import threading
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from grncli.evaluation import feature_collection as module
from grncli.evaluation.feature_collection import Collector, collect
from grncli.evaluation.measuring import OneSize, PictureReading
from grncli.evaluation.picture_sources import open_pictures
from grncli.metrics.feature_networks import Features, load_feature_network
from grncli.metrics.statistics_files import (
    write_statistics,
)
from grncli.runtime.errors import MediaError, UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.processes import Processes
from grncli.runtime.stopping import Stop, Unfinished


class Colours(nn.Module):
    """Called as StyleGAN's Inception is: features are a picture's mean colours and least red, logits the colours."""

    def forward(self, img: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        means = img.float().mean(dim=(2, 3))
        if return_features:
            return torch.cat([means, img[:, :1].float().amin(dim=(2, 3))], dim=1)
        return (means / 10).softmax(dim=1)


class Video(nn.Module):
    """Called as StyleGAN-V's I3D is."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        return x.mean(dim=(2, 3, 4))


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    def save_and_load(network):
        folder = tmp_path_factory.mktemp("network")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(network).save(folder / "mine.pt")
        return load_feature_network(folder / "mine.pt", cache=folder / "cache")

    return save_and_load


@pytest.fixture(scope="module")
def colours(load):
    return load(Colours())


def draw_frames(n, frames=1, seed=0):
    """Uint8 [n, frames, 4, 5, 3], each sample as bright as it likes."""
    generator = np.random.default_rng(seed)
    brightness = generator.integers(1, 256, (n, 1, 1, 1, 3))
    return torch.from_numpy((generator.random((n, frames, 4, 5, 3)) * brightness).astype(np.uint8))


def by_hand(frames):
    """Features of each frame, in float64."""
    flat = frames.flatten(0, 1).double().flatten(1, 2)
    return torch.cat([flat.mean(dim=1), flat[:, :, :1].amin(dim=1)], dim=1).numpy()


def all_of(file):
    return file.read(np.arange(len(file)))


# Collecting


def collected(network, frames, *, batch=7, **options):
    """Counted a batch at a time, the last sample first."""
    collector = Collector(network, **options)
    for start in reversed(range(0, len(frames), batch)):
        found = collector.compute(frames[start : start + batch])
        for i in reversed(range(len(found))):
            collector.add(start + i, found[i])
    return collector.distribution({"src": "here"})


@pytest.mark.parametrize("frames", [1, 3])
def test_moments_are_those_of_every_frame_computed_directly(colours, frames):
    pictures = draw_frames(300, frames)
    expected = by_hand(pictures)
    found = collected(colours, pictures)
    assert found.count == 300 * frames
    assert np.allclose(found.mean, expected.mean(axis=0), rtol=1e-6)
    assert np.allclose(found.covariance, np.cov(expected.T), rtol=1e-5)


def test_kept_features_are_in_the_order_of_the_pictures_and_of_their_frames(colours):
    pictures = draw_frames(20, 3)
    found = collected(colours, pictures, keep=True)
    assert np.allclose(all_of(found.features), by_hand(pictures), rtol=1e-5)


def test_features_are_not_kept_unless_asked_for(colours):
    assert collected(colours, draw_frames(5)).features is None


@pytest.mark.parametrize("frames", [1, 3])
def test_class_scores_are_those_of_the_probabilities_of_every_frame(colours, frames):
    pictures = draw_frames(60, frames)
    odds = torch.from_numpy(by_hand(pictures)[:, :3] / 10).softmax(dim=1).numpy()
    expected = module.ClassScores(3)
    for place, row in enumerate(odds):
        expected.add(np.array([place]), row[None])
    found = collected(colours, pictures, probabilities=True).scores
    assert found.score() == pytest.approx(expected.score(), rel=1e-5)


def test_probabilities_stay_with_their_sample(colours):
    pictures = draw_frames(3, 2)
    found = Collector(colours, probabilities=True).compute(pictures)
    assert all(isinstance(each, Features) for each in found)
    expected = torch.from_numpy(by_hand(pictures)[:, :3] / 10).softmax(dim=1).float().unflatten(0, (3, 2))
    assert torch.allclose(torch.stack([each.probabilities for each in found]), expected, atol=1e-5)


def test_class_accuracy_is_the_share_of_pictures_seen_as_their_class(colours):
    pictures = torch.zeros(5, 1, 4, 4, 3, dtype=torch.uint8)
    for i, brightest in enumerate([0, 1, 2, 2, 1]):
        pictures[i, ..., brightest] = 200
    collector = Collector(colours, probabilities=True)
    colours.classes = ("red", "green", "blue")
    labels = ["red", "green", "red", "blue", None]
    for place, (features, label) in enumerate(zip(collector.compute(pictures), labels, strict=True)):
        collector.add(place, features, label)
    assert collector.distribution({"src": "here"}).class_accuracy == 0.75


def test_a_distribution_says_which_network_saw_it(colours):
    about = collected(colours, draw_frames(4)).about
    assert about["network"]["sha256"] == colours.sha256
    assert (about["src"], about["count"]) == ("here", 4)


def test_no_pictures_make_no_distribution(colours):
    with pytest.raises(MediaError, match=r"^photos: none of its pictures could be read$"):
        Collector(colours).distribution({"src": "photos"})


def test_what_a_network_cannot_take_is_a_usage_error(load):
    with pytest.raises(UsageError, match="takes clips"):
        Collector(load(Video())).compute(draw_frames(2))


class Threads(Processes):
    """Processes that are threads of this one."""

    meeting: threading.Barrier
    vectors: dict

    @classmethod
    def together(cls, count):
        meeting, vectors = threading.Barrier(count, timeout=20), {}
        for rank in range(count):
            one = cls(rank, count)
            object.__setattr__(one, "meeting", meeting)
            object.__setattr__(one, "vectors", vectors)
            yield one

    def gather_bytes(self, data):
        self.vectors[self.rank] = data
        self.meeting.wait()
        found = [self.vectors[rank] for rank in range(self.count)]
        self.meeting.wait()
        return found


def in_threads(count, work):
    """What ``work(processes)`` gives in each of them."""
    found = {}
    threads = [
        threading.Thread(target=lambda one=one: found.update({one.rank: work(one)})) for one in Threads.together(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(count)]


@pytest.mark.parametrize("pictures", [50, 2])
def test_processes_find_together_what_one_finds_alone(colours, monkeypatch, pictures):
    """With two pictures, the third process has none."""
    monkeypatch.setattr(module, "ADDED_AT_ONCE", 4)
    frames = draw_frames(pictures, 2)
    found = Collector(colours, probabilities=True).compute(frames)

    def count(processes):
        collector = Collector(colours, keep=True, probabilities=True)
        for place in range(processes.rank, pictures, processes.count):
            collector.add(place, found[place], label=place % 3)
        return collector.distribution({"src": "here"}, processes)

    alone = count(Processes())
    for together in in_threads(3, count):
        assert (together.count, together.class_accuracy) == (alone.count, alone.class_accuracy)
        assert np.allclose(together.mean, alone.mean, rtol=1e-12)
        assert np.allclose(together.covariance, alone.covariance, rtol=1e-10, atol=1e-10)
        assert together.scores.score() == pytest.approx(alone.scores.score(), rel=1e-12)
        assert np.array_equal(all_of(together.features), all_of(alone.features))


@pytest.fixture
def array(tmp_path):
    np.savez(tmp_path / "samples.npz", arr_0=draw_frames(30)[:, 0].numpy())
    return str(tmp_path / "samples.npz")


def test_pictures_are_collected_in_one_pass(colours, array):
    found = collect(open_pictures(array, PictureReading(batch=8)), colours, keep=True)
    expected = by_hand(draw_frames(30))
    assert np.allclose(found.covariance, np.cov(expected.T), rtol=1e-5)
    assert np.allclose(all_of(found.features), expected, rtol=1e-5)
    assert (found.count, found.about["picture"], found.about["failed"]) == (30, [4, 5], 0)


def test_a_stop_makes_no_distribution_of_a_part(colours, array):
    class Asked(Stop):
        reason = "SIGTERM"

    with pytest.raises(Unfinished, match=r"^SIGTERM: stopped after 8 of 30 pictures$"):
        collect(open_pictures(array, PictureReading(batch=8)), colours, monitor=Monitor(Asked()))


# Sizes of pictures


def test_two_sizes_are_refused_with_a_picture_of_each():
    sizes = OneSize(wanted=True)
    sizes.check((1, 32, 48), "a.png")
    sizes.check((1, 32, 48), "b.png")
    with pytest.raises(UsageError, match=r"^a\.png is 32x48 pixels and c\.png 48x32; expected one size, give --size"):
        sizes.check((1, 48, 32), "c.png")


def test_two_sizes_are_taken_where_that_is_wanted():
    sizes = OneSize(wanted=False)
    for size in ((32, 48), (48, 32)):
        sizes.check(size, "a.png")
    assert sizes.size is None  # there is no one size


def test_features_are_written_in_the_order_of_the_pictures(tmp_path, colours):
    path, pictures = tmp_path / "photos.npz", draw_frames(40)
    write_statistics(path, collected(colours, pictures, keep=True), features=True)
    with np.load(path, allow_pickle=False) as file:
        assert np.allclose(file["features"], by_hand(pictures), rtol=1e-5)
