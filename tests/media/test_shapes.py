import json
import shutil
from collections import Counter

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from grncli.errors import UsageError
from grncli.media import shapes
from grncli.media.shapes import (
    CLIP_CLASSES,
    COLOURS,
    DIRECTIONS,
    IMAGE_CLASSES,
    SHAPES,
    draw_clip,
    draw_image,
    write_shapes,
)

FEW = {"images": 20, "clips": 6, "frames": 5}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def centroid(frame):
    """Middle (x, y) of the vivid pixels; the background is muted."""
    vivid = np.ptp(frame.astype(int), axis=-1) > 80
    rows, columns = np.nonzero(vivid)
    return np.array([columns.mean(), rows.mean()])


def decoded(path, size):
    reader = imageio_ffmpeg.read_frames(str(path))
    next(reader)
    return np.stack([np.frombuffer(frame, np.uint8).reshape(size, size, 3) for frame in reader])


def test_classes_are_every_combination_once():
    assert set(IMAGE_CLASSES) == {f"{colour}-{shape}" for colour in COLOURS for shape in SHAPES}
    assert set(CLIP_CLASSES) == {f"{name}-{direction}" for name in IMAGE_CLASSES for direction in DIRECTIONS}
    assert (len(IMAGE_CLASSES), len(CLIP_CLASSES)) == (16, 64)


@pytest.mark.parametrize("classes", [IMAGE_CLASSES, CLIP_CLASSES])
def test_every_four_classes_show_every_colour_shape_and_direction(classes):
    for start in range(0, len(classes), 4):
        for traits in zip(*(name.split("-") for name in classes[start : start + 4]), strict=True):
            assert len(set(traits)) == 4


def test_classes_are_balanced(tmp_path):
    write_shapes(tmp_path / "s", images=37, clips=0)
    counts = Counter(path.parent.name for path in (tmp_path / "s/images").rglob("*.png"))
    assert set(counts) == set(IMAGE_CLASSES)
    assert set(counts.values()) == {2, 3}
    assert not (tmp_path / "s/clips").exists()


@pytest.mark.parametrize("index", range(16))
def test_images_show_the_colour_of_their_class(index):
    picture = draw_image(0, index, 32).astype(int)
    shown = np.median(picture[np.ptp(picture, axis=-1) > 80], axis=0)
    distances = {colour: np.abs(shown - rgb).sum() for colour, rgb in COLOURS.items()}
    assert min(distances, key=distances.get) == IMAGE_CLASSES[index].split("-")[0]


@pytest.mark.parametrize("index", range(0, 64, 5))
def test_clips_move_as_their_class_says_at_constant_speed(index):
    places = np.stack([centroid(frame) for frame in draw_clip(0, index, 64, 9)])
    heading = np.array(DIRECTIONS[CLIP_CLASSES[index].split("-")[2]])
    steps = np.diff(places, axis=0)
    assert (steps @ heading > 1).all()
    assert np.abs(steps - steps.mean(axis=0)).max() < 0.5
    assert np.abs(steps @ heading[::-1]).max() < 0.5


def test_written_clips_still_show_direction_and_length(tmp_path):
    write_shapes(tmp_path, images=0, clips=8)
    for name in CLIP_CLASSES[:8]:
        frames = decoded(tmp_path / f"clips/{name}/00000.mp4", 32)
        assert len(frames) == 17
        way = centroid(frames[-1]) - centroid(frames[0])
        assert way @ DIRECTIONS[name.split("-")[2]] > 5


@pytest.mark.parametrize("index", range(0, 64, 7))
def test_shapes_stay_wholly_inside(monkeypatch, index):
    masks = []
    draw = shapes._Figure._mask
    monkeypatch.setattr(shapes._Figure, "_mask", lambda *args: masks.append(draw(*args)) or masks[-1])
    draw_clip(3, index, 32, 5)
    for mask in masks[::2]:  # Every second one is the shadow's, which may be cut.
        values = np.pad(np.asarray(mask)[1:-1, 1:-1].astype(int), 1)
        whole = np.asarray(mask).astype(int).sum()
        assert whole - values.sum() < 0.05 * whole


def test_sample_depends_on_seed_kind_and_index_only():
    np.testing.assert_array_equal(draw_image(5, 3, 32), draw_image(5, 3, 32))
    drawn = [draw_image(5, 3, 32), draw_image(6, 3, 32), draw_image(5, 19, 32), draw_clip(5, 3, 32, 2)[0]]
    assert len({picture.tobytes() for picture in drawn}) == 4


def test_same_seed_gives_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shapes(tmp_path / name, **FEW, seed=7)
    write_shapes(tmp_path / "c", **FEW, seed=8)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_larger_set_begins_with_the_smaller(tmp_path):
    write_shapes(tmp_path / "a", images=5, clips=0)
    write_shapes(tmp_path / "b", images=20, clips=0)
    small, large = contents(tmp_path / "a/images"), contents(tmp_path / "b/images")
    assert small.items() <= large.items()


def test_resume_completes_without_rewriting(tmp_path):
    def interrupt(done, total):
        if done == 9:
            raise KeyboardInterrupt

    write_shapes(tmp_path / "whole", **FEW)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "cut", **FEW, report=interrupt)
    before = times(tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob(".*"))
    summary = write_shapes(tmp_path / "cut", **FEW)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert before.items() <= times(tmp_path / "cut").items()
    assert (summary.present, summary.written) == (len(before) - 1, 26 - (len(before) - 1))


def test_finished_folder_is_left_alone(tmp_path):
    write_shapes(tmp_path, **FEW)
    before = times(tmp_path)
    summary = write_shapes(tmp_path, **FEW)
    assert times(tmp_path) == before
    assert (summary.present, summary.written) == (26, 0)


def test_report_counts_up_to_the_total(tmp_path):
    seen = []
    write_shapes(tmp_path, **FEW, report=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 26) for done in range(27)]


def test_other_settings_are_refused_until_overwritten(tmp_path):
    write_shapes(tmp_path, **FEW)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(seed=0\)"):
        write_shapes(tmp_path, **FEW, seed=1)
    assert contents(tmp_path) == before
    write_shapes(tmp_path, images=3, clips=0, seed=1, overwrite=True)
    assert len(contents(tmp_path)) == 4
    assert json.loads((tmp_path / "shapes.json").read_text())["seed"] == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("marker", [None, "not json", '{"images": 512}', "[1]"])
def test_overwrite_never_deletes_a_foreign_folder(tmp_path, overwrite, marker):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mine.png").write_bytes(b"precious")
    if marker is not None:
        (tmp_path / "shapes.json").write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="something other than shapes"):
        write_shapes(tmp_path, **FEW, overwrite=overwrite)
    assert contents(tmp_path) == before


def test_overwrite_spares_what_others_put_beside_the_samples(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.mp4").write_bytes(b"precious")
    folder = tmp_path / "s"
    write_shapes(folder, images=2, clips=0)
    (folder / "notes.txt").write_text("precious")
    (folder / "clips").symlink_to(elsewhere)
    write_shapes(folder, images=1, clips=1, frames=2, overwrite=True)
    assert (folder / "notes.txt").read_text() == "precious"
    assert [entry.name for entry in elsewhere.iterdir()] == ["mine.mp4"]


def test_folder_killed_before_its_marker_is_still_usable(tmp_path):
    (tmp_path / ".shapes.json.tmp").write_text("{")
    write_shapes(tmp_path, images=1, clips=0)
    assert set(contents(tmp_path)) == {"shapes.json", f"images/{IMAGE_CLASSES[0]}/00000.png"}


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "s").write_text("precious")
    with pytest.raises(UsageError, match="is a file"):
        write_shapes(tmp_path / "s", overwrite=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": -1},
        {"clips": -1},
        {"seed": -1},
        {"size": 8},
        {"frames": 1},
        {"fps": 0},
        {"fps": float("nan")},
    ],
)
def test_impossible_settings_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(UsageError):
        write_shapes(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()


def test_pictures_have_the_size_asked_for(tmp_path):
    write_shapes(tmp_path, images=1, clips=1, size=45, frames=2)
    (image,) = tmp_path.rglob("*.png")
    (clip,) = tmp_path.rglob("*.mp4")
    assert Image.open(image).size == (45, 45)
    assert decoded(clip, 45).shape == (2, 45, 45, 3)


def test_an_interrupted_overwrite_goes_on_and_a_complete_one_is_drawn_anew(tmp_path):
    write_shapes(tmp_path, **FEW)

    def killed(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path, **FEW, overwrite=True, report=killed)
    again = write_shapes(tmp_path, **FEW, overwrite=True)
    assert again.present >= 3
    expected = contents(tmp_path)
    anew = write_shapes(tmp_path, **FEW, overwrite=True)
    assert anew.present == 0
    assert contents(tmp_path) == expected
    assert not (tmp_path / ".overwriting").exists()


def test_shapes_are_not_drawn_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    write_shapes(tmp_path / "s", images=1, clips=0)
    shutil.rmtree(tmp_path / "s/images")
    (tmp_path / "s/images").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="is a link, and nothing is written"):
        write_shapes(tmp_path / "s", images=1, clips=0)
    assert not list((tmp_path / "outside").iterdir())
