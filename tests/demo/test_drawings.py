import json
import shutil
from collections import Counter

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from grncli.cli import app
from grncli.demo import shapes_folder
from grncli.demo.drawings import draw_clip, draw_group, draw_image
from grncli.demo.figures import DrawnFigure, upright
from grncli.demo.shape_sets import DIRECTIONS, SETS
from grncli.demo.shapes_folder import ShapesSettings
from grncli.runtime.errors import UsageError
from grncli.runtime.monitor import Monitor

FEW = {"images": 20, "clips": 6, "frames": 5}
EASY, HARD = SETS["easy"], SETS["hard"]
# Mean grey of each of 4x4 blocks of picture 5 and of the last of five frames of clip 5, seed 3, as the hard set has
# been drawn since it was the only one.
HARD_IMAGE = [
    [101.8, 102.8, 88.9, 86.3],
    [112.7, 105.7, 92.0, 89.6],
    [107.1, 106.9, 105.0, 95.5],
    [121.9, 111.6, 104.6, 92.1],
]
HARD_CLIP = [
    [171.5, 166.2, 159.4, 159.3],
    [167.4, 171.2, 160.0, 165.1],
    [173.2, 158.3, 104.4, 120.7],
    [162.3, 168.4, 112.2, 136.3],
]


def write_shapes(folder, *, overwrite=False, progress=lambda done, total, note: None, **settings):
    monitor = Monitor(progress=progress)
    return shapes_folder.write_shapes(folder, ShapesSettings(**settings), overwrite=overwrite, monitor=monitor)


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


def blocks(picture):
    return picture.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3, 4)).round(1)


@pytest.mark.parametrize(("name", "counts"), [("easy", (8, 6, 48, 192)), ("hard", (4, 4, 16, 64))])
def test_classes_are_every_combination_once(name, counts):
    drawn = SETS[name]
    images, clips = drawn.image_classes, drawn.clip_classes
    assert set(images) == {f"{colour}-{shape}" for colour in drawn.colours for shape in drawn.shapes}
    assert set(clips) == {f"{name}-{direction}" for name in images for direction in DIRECTIONS}
    assert (len(drawn.colours), len(drawn.shapes), len(images), len(clips)) == counts


@pytest.mark.parametrize("kind", ["image_classes", "clip_classes"])
@pytest.mark.parametrize(("name", "few", "every"), [("easy", 8, 1), ("hard", 4, 4)])
def test_few_classes_in_a_row_show_every_colour_shape_and_direction(name, few, every, kind):
    classes = getattr(SETS[name], kind)
    turns = [*classes, *classes[:few]]
    shown = [set(SETS[name].colours), set(SETS[name].shapes), set(DIRECTIONS)]
    for start in range(0, len(classes), every):
        traits = zip(*(name.split("-") for name in turns[start : start + few]), strict=True)
        assert [set(trait) for trait in traits] == shown[: 2 + (kind == "clip_classes")]


def test_first_clips_tie_no_direction_to_a_colour_or_shape():
    met = [name.split("-") for name in EASY.clip_classes[:24]]
    assert len({(colour, direction) for colour, _, direction in met}) == 24
    assert len({(shape, direction) for _, shape, direction in met}) == 24


@pytest.mark.parametrize(("name", "counts"), [("easy", {0, 1}), ("hard", {2, 3})])
def test_classes_are_balanced(tmp_path, name, counts):
    write_shapes(tmp_path / "s", images=37, clips=0, set=name)
    found = Counter(path.parent.name for path in (tmp_path / "s/images").rglob("*.png"))
    assert {found[each] for each in SETS[name].image_classes} == counts
    assert sum(found.values()) == 37
    assert not (tmp_path / "s/clips").exists()


@pytest.mark.parametrize("name", SETS)
def test_images_show_the_colour_of_their_class(name):
    drawn = SETS[name]
    for index, shown in enumerate(drawn.image_classes):
        picture = draw_image(0, index, 32, name).astype(int)
        middle = np.median(picture[np.ptp(picture, axis=-1) > 80], axis=0)
        distances = {colour: np.abs(middle - rgb).sum() for colour, rgb in drawn.colours.items()}
        assert min(distances, key=distances.get) == shown.split("-")[0]


def test_easy_shapes_are_large_upright_and_near_the_middle(monkeypatch):
    figures, places = [], []
    monkeypatch.setattr(DrawnFigure, "on", lambda figure, ground, x, y: figures.append(figure) or places.append((x, y)))
    for index in range(200):
        draw_image(0, index, 32, "easy")
    assert all(0.33 * 32 <= figure.radius <= 0.42 * 32 for figure in figures)
    assert np.abs(np.array(places) - 16).max() <= 2
    turns = {shape: [figure.rotation for figure in figures if figure.shape == shape] for shape in EASY.shapes}
    assert all(0.3 < max(turn) - min(turn) <= np.pi / 6 for turn in turns.values())


@pytest.mark.parametrize("shape", EASY.shapes)
def test_upright_shapes_are_symmetric_and_point_up(shape):
    figure = DrawnFigure(shape=shape, radius=24, rotation=upright(shape), colour=np.zeros(3), size=64, shade=0)
    mask = np.asarray(figure.mask(32, 32)).astype(int)
    assert np.abs(mask - mask[:, ::-1]).sum() < 0.03 * mask.sum()
    top = np.flatnonzero(mask.any(axis=1))[0] + 1
    assert ((mask[top] > 0).sum() <= 4) == (shape in ("triangle", "star", "arrow"))  # These point up.


def test_easy_ground_is_smooth():
    ground = EASY.ground(np.random.default_rng(0), 32)
    np.testing.assert_allclose(np.diff(ground, 2, axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(np.diff(ground, 2, axis=1), 0, atol=1e-9)


def test_hard_set_is_drawn_as_ever():
    np.testing.assert_allclose(blocks(draw_image(3, 5, 32, "hard")), HARD_IMAGE, atol=0.5)
    np.testing.assert_allclose(blocks(draw_clip(3, 5, 32, 5, "hard")[-1]), HARD_CLIP, atol=0.5)


@pytest.mark.parametrize(("options", "name"), [([], "easy"), (["--set", "hard"], "hard")])
def test_command_draws_the_easy_set_or_the_one_asked_for(tmp_path, options, name):
    assert CliRunner().invoke(app, ["shapes", str(tmp_path), "--images", "1", "--clips", "0", *options]).exit_code == 0
    (picture,) = tmp_path.rglob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), draw_image(0, 0, 32, name))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("index", range(0, 64, 5))
def test_clips_move_as_their_class_says_at_constant_speed(index, name):
    places = np.stack([centroid(frame) for frame in draw_clip(0, index, 64, 9, name)])
    heading = np.array(DIRECTIONS[SETS[name].clip_classes[index].split("-")[2]])
    steps = np.diff(places, axis=0)
    assert (steps @ heading > 1).all()
    assert np.abs(steps - steps.mean(axis=0)).max() < 0.5
    assert np.abs(steps @ heading[::-1]).max() < 0.5


@pytest.mark.parametrize("name", SETS)
def test_written_clips_still_show_direction_and_length(tmp_path, name):
    write_shapes(tmp_path, images=0, clips=8, set=name)
    for shown in SETS[name].clip_classes[:8]:
        frames = decoded(tmp_path / f"clips/{shown}/00000.mp4", 32)
        assert len(frames) == 17
        way = centroid(frames[-1]) - centroid(frames[0])
        assert way @ DIRECTIONS[shown.split("-")[2]] > 5


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("index", range(0, 64, 7))
def test_shapes_stay_wholly_inside(monkeypatch, index, name):
    masks = []
    draw = DrawnFigure.mask
    monkeypatch.setattr(DrawnFigure, "mask", lambda *args: masks.append(draw(*args)) or masks[-1])
    draw_image(3, index, 32, name)
    draw_clip(3, index, 32, 5, name)
    for mask in masks[SETS[name].shadow > 0 :: 1 + (SETS[name].shadow > 0)]:  # The shadow's may be cut.
        values = np.pad(np.asarray(mask)[1:-1, 1:-1].astype(int), 1)
        whole = np.asarray(mask).astype(int).sum()
        assert whole - values.sum() < 0.05 * whole


def test_sample_depends_on_seed_kind_index_and_set_only():
    np.testing.assert_array_equal(draw_image(5, 3, 32, "easy"), draw_image(5, 3, 32, "easy"))
    others = [draw_image(6, 3, 32, "easy"), draw_image(5, 51, 32, "easy"), draw_image(5, 3, 32, "hard")]
    drawn = [draw_image(5, 3, 32, "easy"), *others, draw_clip(5, 3, 32, 2, "easy")[0]]
    assert len({picture.tobytes() for picture in drawn}) == 5


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
    def interrupt(done, total, note):
        if done == 9:
            raise KeyboardInterrupt

    write_shapes(tmp_path / "whole", **FEW)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path / "cut", **FEW, progress=interrupt)
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
    write_shapes(tmp_path, **FEW, progress=lambda done, total, note: seen.append((done, total)))
    assert seen == [(done, 26) for done in range(27)]


def test_other_settings_are_refused_until_overwritten(tmp_path):
    write_shapes(tmp_path, **FEW)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"other settings \(seed=0 there, 1 asked\)"):
        write_shapes(tmp_path, **FEW, seed=1)
    with pytest.raises(UsageError, match=r"other settings \(set=easy there, hard asked\)"):
        write_shapes(tmp_path, **FEW, set="hard")
    assert contents(tmp_path) == before
    write_shapes(tmp_path, images=3, clips=0, seed=1, overwrite=True)
    assert len(contents(tmp_path)) == 4
    assert json.loads((tmp_path / "shapes.json").read_text())["seed"] == 1


def test_folder_from_before_there_were_two_sets_is_completed_as_hard(tmp_path):
    write_shapes(tmp_path, images=3, clips=0, set="hard")
    marker = json.loads((tmp_path / "shapes.json").read_text())
    del marker["set"]
    (tmp_path / "shapes.json").write_text(json.dumps(marker))
    next(tmp_path.rglob("*.png")).unlink()
    with pytest.raises(UsageError, match=r"other settings \(set=hard there, easy asked\)"):
        write_shapes(tmp_path, images=3, clips=0)
    assert write_shapes(tmp_path, images=3, clips=0, set="hard").written == 1


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("marker", "sentence"),
    [
        (None, "holds files that grn shapes did not write"),
        ("not json", r"shapes\.json: .*choose a new or empty folder"),
        ('{"images": 512}', "made_by=None there, grn shapes asked"),
        ("[1]", r"shapes\.json: holds \[1\], expected a JSON object; choose a new or empty folder"),
    ],
)
def test_overwrite_never_deletes_a_foreign_folder(tmp_path, overwrite, marker, sentence):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/mine.png").write_bytes(b"precious")
    if marker is not None:
        (tmp_path / "shapes.json").write_text(marker)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=sentence):
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
    assert set(contents(tmp_path)) == {"shapes.json", f"images/{EASY.image_classes[0]}/00000.png"}


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
        {"set": "medium"},
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


def test_an_interrupted_overwrite_resumes_and_a_complete_one_is_drawn_again(tmp_path):
    write_shapes(tmp_path, **FEW)

    def killed(done, total, note):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shapes(tmp_path, **FEW, overwrite=True, progress=killed)
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


def test_captions_lie_beside_each_drawing_in_five_wordings(tmp_path):
    write_shapes(tmp_path / "s", images=50, clips=8, frames=3, size=16, captions=True)
    drawings = [path for path in (tmp_path / "s").rglob("*") if path.suffix in (".png", ".mp4")]
    assert len(drawings) == 58
    for path in drawings:
        lines = path.with_suffix(".txt").read_text().splitlines()
        assert len(set(lines)) == 5
        words = path.parent.name.split("-")
        assert all(set(words) <= set(line.split()) for line in lines)
    assert "an orange star" in (tmp_path / "s/images/orange-star/00000.txt").read_text().splitlines()


def test_drawings_are_the_same_with_captions_and_without_combinations(tmp_path):
    plain = write_and_read(tmp_path / "plain", images=60, clips=12)
    captioned = write_and_read(tmp_path / "captioned", images=60, clips=12, captions=True)
    assert {name: data for name, data in captioned.items() if not name.endswith(".txt")} == plain
    left_out = write_and_read(tmp_path / "left", images=60, clips=12, without=("red-circle", "green-star"))
    names = {name.split("/")[1] for name in left_out}
    assert not any(name.startswith(("red-circle", "green-star")) for name in names)
    assert Counter(name.split("/")[0] for name in left_out) == {"images": 60, "clips": 12}
    shared = plain.keys() & left_out.keys()
    assert len(shared) > 60
    assert all(plain[name] == left_out[name] for name in shared)


def write_and_read(folder, **settings):
    write_shapes(folder, frames=3, size=16, **settings)
    return {name: data for name, data in contents(folder).items() if name != "shapes.json"}


def test_a_folder_without_captions_is_marked_as_it_ever_was(tmp_path):
    write_shapes(tmp_path / "s", images=1, clips=0)
    assert not json.loads((tmp_path / "s/shapes.json").read_text()).keys() & {"captions", "without"}
    with pytest.raises(UsageError, match="drawn with other settings"):
        write_shapes(tmp_path / "s", images=1, clips=0, captions=True)


def test_a_missing_caption_is_written_again(tmp_path):
    settings = {"images": 3, "clips": 0, "captions": True, "without": ("red-star",)}
    write_shapes(tmp_path / "s", **settings)
    whole = contents(tmp_path / "s")
    next((tmp_path / "s").rglob("*.txt")).unlink()
    assert write_shapes(tmp_path / "s", **settings).written == 1
    assert contents(tmp_path / "s") == whole


@pytest.mark.parametrize(
    ("without", "words"),
    [("red-star,red-moon", "There is no red-moon"), (",".join(EASY.image_classes), "All 48 combinations")],
)
def test_combinations_that_cannot_be_left_out_are_refused(tmp_path, without, words):
    done = CliRunner().invoke(app, ["shapes", str(tmp_path / "s"), "--without", without])
    assert done.exit_code == 2
    assert words in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("name", "size"), [("easy", 32), ("hard", 64)])
def test_a_group_has_a_figure_in_each_quarter(name, size):
    half = size // 2
    for index in range(8):
        picture = draw_group(0, index, size, name).astype(int)
        vivid = np.ptp(picture, axis=-1) > 80
        quarters = [vivid[y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
        assert all(0.05 < quarter.mean() < 0.6 for quarter in quarters)
        assert not vivid[[0, -1]].any()
        assert not vivid[:, [0, -1]].any()


def test_groups_are_drawn_beside_the_others_with_captions_of_their_own(tmp_path):
    plain = write_and_read(tmp_path / "plain", images=48, clips=0)
    grouped = write_and_read(tmp_path / "grouped", images=48, clips=0, groups=3, captions=True)
    names = [f"images/four-figures/{number:05d}.png" for number in range(3)]
    pictures = {name: data for name, data in grouped.items() if name.endswith(".png")}
    assert pictures.keys() == plain.keys() | set(names)
    assert len({pictures[name] for name in names}) == 3
    wordings = grouped["images/four-figures/00000.txt"].decode().splitlines()
    assert len(set(wordings)) == 5
    assert all("four" in wording for wording in wordings)


def test_a_group_shows_no_combination_that_is_left_out(monkeypatch):
    drawn = []
    monkeypatch.setattr(DrawnFigure, "on", lambda self, ground, x, y: drawn.append(self.shape) or ground)
    without = [name for name in EASY.image_classes if name.split("-")[1] != "star"]
    draw_group(0, 0, 32, "easy", without)
    assert drawn == ["star"] * 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"images": 2.5}, "images is 2.5, expected a whole number"),
        ({"seed": None}, "seed is None, expected a whole number"),
        ({"without": "red-star"}, "'red-star', expected a list of names"),
    ],
)
def test_a_setting_of_another_type_is_refused_before_a_folder_is_made(tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        write_shapes(tmp_path / "shapes", **settings)
    assert not list(tmp_path.iterdir())
