import os
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from grncli.media import clip_decoding, writing
from grncli.media.writing import contact_sheet, write_mp4, write_png
from grncli.runtime.errors import MediaError
from grncli.runtime.files import whole_file

FLAT_COLOURS = ["#ff0000", "#00ff00", "#0000ff", "#ffff00", "#000000", "#ffffff", "#8040c8", "#145a82"]


def flat_frames(height, width):
    colours = [tuple(bytes.fromhex(colour[1:])) for colour in FLAT_COLOURS]
    return np.stack([np.full((height, width, 3), colour, np.uint8) for colour in colours])


def decoded(path, height, width, layout="rgb24"):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", layout, "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def described(path):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_png_gives_pixels_back(tmp_path):
    pixels = noise(7, 5)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127 + "a", "a" * 250])
def test_the_longest_names_can_be_written(tmp_path, name):
    (tmp_path / name).write_bytes(b"the earlier file")
    write_png(tmp_path / name, noise(2, 2))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert Image.open(tmp_path / name).size == (2, 2)


def test_long_names_are_written_side_by_side(tmp_path):
    with whole_file(tmp_path / ("a" * 254 + "1")) as one, whole_file(tmp_path / ("a" * 254 + "2")) as two:
        one.write_bytes(b"1")
        two.write_bytes(b"2")
    assert sorted(entry.read_bytes() for entry in tmp_path.iterdir()) == [b"1", b"2"]


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)])
def test_pixels_of_another_kind_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match="expected uint8 pixels"):
        write_png(tmp_path / "a.png", pixels)
    assert not list(tmp_path.iterdir())


def test_mp4_gives_colours_back(tmp_path):
    frames = flat_frames(64, 48)
    write_mp4(tmp_path / "a.mp4", frames, 8.0)
    difference = decoded(tmp_path / "a.mp4", 64, 48).astype(int) - frames
    assert np.abs(difference).max() <= 2


def test_mp4_is_bt709_and_says_so(tmp_path):
    write_mp4(tmp_path / "a.mp4", flat_frames(16, 16)[:1], 8.0)
    assert "yuv420p(tv, bt709, " in described(tmp_path / "a.mp4")
    planes = decoded(tmp_path / "a.mp4", 16, 16, "yuv444p").reshape(3, -1)
    # Pure red by the BT.709 matrix in limited range; BT.601 would give 81, 90, 240.
    assert np.abs(planes.mean(axis=1) - (63, 102, 240)).max() <= 1


@pytest.mark.parametrize("size", [(33, 48), (48, 33), (17, 15), (1, 1)])
def test_odd_sizes_survive(tmp_path, size):
    frames = flat_frames(*size)
    write_mp4(tmp_path / "a.mp4", frames, 8.0)
    assert np.abs(decoded(tmp_path / "a.mp4", *size).astype(int) - frames).max() <= 2


def test_frame_rates_are_kept(tmp_path):
    write_mp4(tmp_path / "a.mp4", flat_frames(16, 16), 23.976)
    assert "23.98 fps" in described(tmp_path / "a.mp4")


@pytest.mark.parametrize("fps", [0.0, -8.0, 1e-9])
def test_impossible_frame_rates_are_refused(tmp_path, fps):
    with pytest.raises(ValueError, match="positive frame rate"):
        write_mp4(tmp_path / "a.mp4", flat_frames(16, 16), fps)


def test_same_frames_give_same_bytes(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, flat_frames(32, 32), 8.0)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_names_ffmpeg_could_misread_are_taken_literally(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-a.mp4", "http:b %03d.mp4"):
        write_mp4(Path(name), flat_frames(16, 16), 8.0)
        assert Path(name).is_file()


@pytest.fixture
def ffmpegs(monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(writing.subprocess, "Popen", Recorded)
    return started


@pytest.mark.parametrize("before", [None, b"the earlier clip"])
def test_interrupted_write_leaves_no_file(tmp_path, monkeypatch, ffmpegs, before):
    def interrupted(process, pixels):
        process.stdin.write(pixels[:100])
        raise KeyboardInterrupt

    path = tmp_path / "a.mp4"
    if before:
        path.write_bytes(before)
    monkeypatch.setattr(writing, "_feed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(path, flat_frames(16, 16), 8.0)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([before] if before else [])
    assert ffmpegs[0].returncode is not None  # Killed and reaped.


def test_interrupted_png_leaves_the_earlier_one(tmp_path, monkeypatch):
    def interrupted(picture, target, **options):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    write_png(tmp_path / "a.png", noise(4, 4))
    before = (tmp_path / "a.png").read_bytes()
    monkeypatch.setattr(Image.Image, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_png(tmp_path / "a.png", noise(8, 8))
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [before]


def test_ffmpeg_runs_out_of_reach_of_ctrl_c(tmp_path, monkeypatch):
    options = {}

    def record(*args, **kwargs):
        options.update(kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.subprocess, "Popen", record)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "a.mp4", flat_frames(16, 16), 8.0)
    assert options["start_new_session"] is True


def test_refusal_of_ffmpeg_is_one_sentence_with_the_path(tmp_path):
    path = tmp_path / "absent\u202e" / "a.mp4"
    with pytest.raises(MediaError) as caught:
        write_mp4(path, flat_frames(16, 16), 8.0)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/absent\\u202e/a.mp4: ffmpeg could not write the clip (")
    assert "No such file or directory" in message
    assert "\n" not in message
    assert ".tmp" not in message


def test_ffmpeg_that_stops_reading_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_ffmpeg_command", lambda *_: ["sh", "-c", "echo 'disk full.' >&2; exit 3"])
    with pytest.raises(MediaError, match=r"\(disk full\)\.$"):
        write_mp4(tmp_path / "a.mp4", np.zeros((40, 256, 256, 3), np.uint8), 8.0)
    assert not list(tmp_path.iterdir())


def test_sheet_keeps_small_pictures_crisp():
    picture = noise(32, 32)
    sheet = contact_sheet([[picture]], cell=200, gap=10)
    assert sheet.shape == (212, 212, 3)
    np.testing.assert_array_equal(sheet[10:202, 10:202], picture.repeat(6, 0).repeat(6, 1))


def test_sheet_shrinks_large_pictures_in_proportion():
    sheet = contact_sheet([[np.zeros((300, 600, 3), np.uint8)]], cell=100, gap=10)
    assert sheet.shape == (70, 120, 3)
    assert not sheet[10:60, 10:110].any()


def test_sheet_takes_rows_of_different_lengths():
    picture = np.zeros((50, 50, 3), np.uint8)
    sheet = contact_sheet([[picture], [picture] * 3], cell=50, gap=10)
    assert sheet.shape == (130, 190, 3)
    assert (sheet[10:60, 71:] == 255).all()


def test_long_captions_lose_their_middle_and_stay_in_their_column():
    pictures = [np.zeros((100, 100, 3), np.uint8)] * 2
    captions = ["a-very-long-file-name-that-cannot-fit-00017.png", "b"]
    below = contact_sheet([pictures], captions, cell=100, gap=10)[112:]
    assert (below[:, 10:110] < 255).any()
    assert (below[:, :9] == 255).all()
    assert (below[:, 111:155] == 255).all()
    assert (below[:, 155:175] < 255).any()  # the middle of the second


def test_long_captions_use_the_room_below_pictures_that_have_none():
    pictures = [np.zeros((100, 100, 3), np.uint8)] * 4
    captions = ["a long prompt for two pictures and then some", "", "b", ""]
    below = contact_sheet([pictures], captions, cell=100, gap=10)[112:]
    assert (below[:, 120:200] < 255).any()
    assert (below[:, 221:270] == 255).all()
    assert (below[:, 270:290] < 255).any()


def test_shortened_caption_keeps_both_ends():
    font = writing.ImageFont.load_default(12)
    short = writing._shorten("red-circle-and-more-words-00017", font, 90)
    head, tail = short.split(writing.ELLIPSIS)
    assert "red-circle-and-more-words-00017".startswith(head)
    assert "red-circle-and-more-words-00017".endswith(tail)
    assert head
    assert tail
    assert font.getlength(short) <= 90


def test_captions_hold_only_letters_of_the_font():
    font = writing.ImageFont.load_default(12)
    assert (
        writing._shorten("Fluß in Zürich 32\N{MULTIPLICATION SIGN}32 ±2 河.png", font, 1000)
        == "Flu? in Zurich 32x32 ±2 ?.png"
    )


@pytest.mark.parametrize(("rows", "captions"), [([], None), ([[]], None), ([[noise(4, 4)]], ["a", "b"])])
def test_sheet_refuses_what_it_cannot_lay_out(rows, captions):
    with pytest.raises(ValueError, match=r"contact sheet|captions"):
        contact_sheet(rows, captions)


def test_a_comment_goes_into_a_picture(tmp_path):
    write_png(tmp_path / "a.png", noise(4, 4), "seed 3, caf\u00e9")
    assert Image.open(tmp_path / "a.png").text["Comment"] == "seed 3, caf\u00e9"


def test_a_comment_goes_into_a_clip(tmp_path):
    comment = '{"seed": 3, "class": "a=b; #1"}'
    write_mp4(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8, comment)
    assert comment.encode() in (tmp_path / "a.mp4").read_bytes()


def test_names_that_are_no_utf8_go_into_comments_as_escapes(tmp_path):
    comment = os.fsdecode(b"caf\xe9 \xff\xfe.png")
    frames = flat_frames(16, 16)
    write_png(tmp_path / "a.png", frames[0], comment)
    assert Image.open(tmp_path / "a.png").text["Comment"] == "caf\\udce9 \\udcff\\udcfe.png"
    write_mp4(tmp_path / "a.mp4", frames, 8, comment)
    assert rb"caf\udce9 \udcff\udcfe.png" in (tmp_path / "a.mp4").read_bytes()


def test_a_missing_ffmpeg_is_named(tmp_path, monkeypatch):
    def missing():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    clip_decoding.ffmpeg.cache_clear()
    with pytest.raises(MediaError, match="reinstall imageio-ffmpeg"):
        write_mp4(tmp_path / "c.mp4", np.zeros((2, 8, 8, 3), np.uint8), 8)
    assert not list(tmp_path.iterdir())
