"""Pictures in one .npz: what guided-diffusion's evaluator opens."""

import numpy as np
import pytest

from grncli.evaluation.measuring import PictureReading
from grncli.evaluation.picture_arrays import write_pictures
from grncli.evaluation.picture_sources import open_pictures
from grncli.media.writing import write_mp4, write_png
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor
from grncli.runtime.stopping import Stop, Unfinished

READING = PictureReading(workers=0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        write_png(tmp_path / "in" / f"{number}.png", picture)
    return tmp_path / "in", pixels


def test_numpy_reads_the_pictures_in_order(folder, tmp_path):
    src, pixels = folder
    assert write_pictures(tmp_path / "out.npz", open_pictures(str(src), READING)) == (5, 12, 16, 3)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert list(file) == ["arr_0"]
        assert np.array_equal(file["arr_0"], pixels)


def test_what_is_written_is_read_again(folder, tmp_path):
    src, pixels = folder
    write_pictures(tmp_path / "out.npz", open_pictures(str(src), READING))
    again = open_pictures(str(tmp_path / "out.npz"), PictureReading(batch=2))
    found = [measured.result for measured in again.measure(lambda frames: [f.numpy() for f in frames])]
    assert np.array_equal(np.concatenate(found), pixels)


def test_a_picture_that_cannot_be_read_is_left_out(folder, tmp_path):
    src, pixels = folder
    (src / "2.png").write_bytes(b"no picture")
    said = []
    assert (
        write_pictures(tmp_path / "out.npz", open_pictures(str(src), READING), monitor=Monitor(say=said.append))[0] == 4
    )
    assert len(said) == 1
    assert "2.png" in said[0]
    assert np.array_equal(np.load(tmp_path / "out.npz")["arr_0"], pixels[[0, 1, 3, 4]])


def test_sizes_that_differ_are_refused_and_nothing_is_written(folder, tmp_path):
    src, _ = folder
    write_png(src / "9.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UsageError, match="expected one size"):
        write_pictures(tmp_path / "out.npz", open_pictures(str(src), READING))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_clips_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    write_mp4(tmp_path / "in" / "a.mp4", np.zeros((5, 16, 16, 3), np.uint8), 8)
    with pytest.raises(UsageError, match="is a clip of 5 frames"):
        write_pictures(tmp_path / "out.npz", open_pictures(str(tmp_path / "in"), READING))


def test_stopped_it_leaves_nothing(folder, tmp_path):
    src, _ = folder
    with pytest.raises(Unfinished):
        write_pictures(tmp_path / "out.npz", open_pictures(str(src), READING), monitor=Monitor(Stop(max_time=0)))
    assert not (tmp_path / "out.npz").exists()
