"""The map of what a step did, and the film of it."""

import numpy as np
import pytest
import torch

from grncli.conditions import ClassCondition
from grncli.sampling.film import COLOURS, change_map, write_film
from grncli.sampling.sampler import Request, Sampler, SamplingSettings, TraceStep
from grncli.schedules import Fixed

FILLED, KEPT, REFINED, ERASED, BLANK = (np.array(colour) for _, colour in COLOURS.values())


def trace_step(drawing, selection):
    drawing, selection = (torch.tensor(values).view(-1, 1, 1, 1) for values in (drawing, selection))
    return TraceStep(0.5, drawing.to(torch.uint8), selection.bool(), drawing.to(torch.uint8))


def channels(picture, side):
    """Colour in the middle of each channel of a single token."""
    step = picture.shape[0] // side
    return picture[step // 2 :: step, step // 2 :: step].reshape(-1, 3)


def test_each_change_has_its_colour():
    before = trace_step([1, 1, 0, 1, 0, 1, 0, 0, 1], [0, 0, 1, 1, 1, 1, 0, 0, 0])
    after = trace_step([1, 0, 0, 0, 0, 0, 1, 0, 1], [0, 1, 1, 1, 0, 0, 1, 0, 1])
    found = channels(change_map(before, after), 3)
    assert np.array_equal(found, [BLANK, FILLED, KEPT, REFINED, ERASED, ERASED, FILLED, BLANK, FILLED])


def test_before_the_first_step_everything_is_blank():
    found = channels(change_map(None, trace_step([1, 0, 1, 0], [1, 0, 0, 1])), 2)
    assert np.array_equal(found, [FILLED, BLANK, BLANK, FILLED])


def test_tokens_lie_where_they_are_in_the_picture():
    drawing = torch.zeros(4, 1, 2, 3, dtype=torch.uint8)
    selection = torch.zeros(4, 1, 2, 3, dtype=torch.bool)
    selection[:, 0, 1, 2] = True
    picture = change_map(None, TraceStep(0.5, drawing, selection, drawing))
    height, width = picture.shape[0] // 2, picture.shape[1] // 3
    filled = (picture == FILLED).all(axis=-1)
    assert filled[height:, 2 * width :].mean() > 0.8
    assert filled.sum() == filled[height:, 2 * width :].sum()


def test_places_without_a_channel_stay_white():
    assert np.array_equal(channels(change_map(None, trace_step([0, 0, 0], [1, 1, 1])), 2)[3], [255, 255, 255])


@pytest.mark.parametrize("grid", [(1, 4, 4), (3, 4, 4)])
def test_the_film_has_every_step_and_a_picture_beside_it(make_generator, make_tokenizer, tmp_path, grid):
    network = make_generator(rounds=2)
    tokenizer = make_tokenizer(2, multipliers=(1, 1), halve_space=(1,), halve_time=(1,))
    sampler = Sampler(network, grid, SamplingSettings(schedule=Fixed(6)), traced=[0, 1])
    samples = list(sampler.run([Request(n, ClassCondition(torch.tensor([n]), 3)) for n in range(2)]))
    film, still = write_film(tmp_path / "film.mp4", samples, tokenizer, network.config.codec)
    frames = read_film(film)
    assert len(frames) == 6 + 8
    assert still.name == "film.png"
    assert not np.array_equal(frames[0], frames[5])


def read_film(path):
    import imageio_ffmpeg

    reader = imageio_ffmpeg.read_frames(str(path))
    size = next(reader)["size"]
    return [np.frombuffer(frame, np.uint8).reshape(size[1], size[0], 3) for frame in reader]
