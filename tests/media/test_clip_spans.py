"""A stretch of a clip has the frames that decoding all of it and cutting has, however far a seek goes."""

import subprocess
from dataclasses import replace

import numpy as np
import pytest

from grncli.media.clip_decoding import ffmpeg
from grncli.media.clip_spans import read_stretch
from grncli.media.clips import ClipReading, read_frames
from grncli.media.framing import parse_size
from grncli.media.jobs import decode_job, encode_job
from grncli.media.random_crops import Crop, read_crop
from grncli.media.reading import ReadSettings, read_pieces
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError

NOISE = ["-vf", "noise=alls=8:allf=t,format=yuv420p"]
# Keyframes far apart and pictures that refer to later ones, so that a seek must decode from before.
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "40", *NOISE]
KINDS = {
    "a.mp4": H264,
    "a.mkv": H264,
    "a.ts": H264,
    "a.flv": ["-c:v", "libx264", "-preset", "ultrafast", "-g", "40", *NOISE],
    "a.mpg": ["-bf", "2", *NOISE],
    "a.avi": ["-c:v", "mpeg4", "-g", "40", *NOISE],
    "late.mkv": [*H264, "-output_ts_offset", "10"],
    "late.ts": [*H264, "-output_ts_offset", "10"],
}
SPANS = [(0.5, 2.04), (3.2, 3.9), (4.999, 6.0)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Six seconds of noise at 25 frames a second in containers of several kinds."""
    folder = tmp_path_factory.mktemp("clips")

    def clip(name):
        path = folder / name
        if not path.exists():
            command = [ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=6", *KINDS[name]]
            subprocess.run([*command, str(path)], check=True, timeout=60)
        return path

    return clip


def whole(path, fps=None):
    reading = ClipReading()
    with open(path, "rb") as file:
        frames = list(read_frames(file.fileno(), fps=fps, reading=reading))
    return frames, reading.times


def stretch(path, span, **options):
    reading = ClipReading()
    with open(path, "rb") as file:
        return list(read_stretch(file.fileno(), span, reading=reading, **options)), reading


@pytest.mark.parametrize("fps", [None, 10.0])
@pytest.mark.parametrize("name", KINDS)
def test_a_stretch_is_what_decoding_all_and_cutting_gives(clips, name, fps):
    frames, times = whole(clips(name), fps)
    for number, time in enumerate(times):
        times[number] = times[number - 1] + 1 / 25 if time is None else time  # as MPEG leaves out some
    assert len(frames) == (150 if fps is None else 60)
    for begin, end in SPANS:
        wanted = [n for n, time in enumerate(times) if begin - 0.0015 <= time < end - 0.0015]
        found, reading = stretch(clips(name), (begin, end), fps=fps)
        assert len(found) == len(wanted)
        assert np.array_equal(found, [frames[n] for n in wanted])
        assert reading.origin == pytest.approx(times[wanted[0]], abs=0.0015)


def test_a_stretch_that_begins_in_a_picture_shown_for_long_is_resampled_as_the_whole_is(tmp_path):
    path = tmp_path / "slides.mkv"
    source = "testsrc2=s=64x48:r=25:d=2,setpts='N*5/TB'"
    command = [ffmpeg(), "-v", "error", "-f", "lavfi", "-i", source, "-fps_mode", "vfr", "-frames:v", "5"]
    subprocess.run([*command, "-enc_time_base", "1:1000", "-c:v", "libx264", str(path)], check=True, timeout=60)
    frames, times = whole(path, 2.0)
    found, _ = stretch(path, (13.0, 16.0), fps=2.0)
    assert np.array_equal(found, [frame for frame, time in zip(frames, times, strict=True) if 13 <= time < 16])


def read(path, span, **options):
    source = Source("x", "clip", str(path), span=span)
    return list(read_pieces(source, ReadSettings(parse_size("native"), (4, 16, 16), **options)))


def test_windows_of_a_stretch_say_when_they_are_shown_in_the_clip(clips):
    pieces = read(clips("a.mkv"), (3.2, 4.0), frames=9)
    assert [(piece.clip, piece.start, piece.fps) for piece in pieces] == [(0, 3.2, 25.0), (1, 3.56, 25.0)]
    frames, _ = whole(clips("a.mkv"))
    assert np.array_equal(pieces[1].pixels, frames[89:98])
    [one] = read(clips("a.mkv"), (3.2, 4.0), frames=9, clips=1)
    assert np.array_equal(one.pixels, frames[80:89])
    [first, last] = read(clips("a.mkv"), (1.0, 4.0), frames=9, clips=2)
    assert (first.start, last.start) == (1.0, 1.0 + 7 * 9 / 25)
    [piece] = read(clips("a.mkv"), (3.2, 4.0))
    assert (piece.start, piece.fps, piece.frames) == (3.2, 25.0, 17)


def test_crops_lie_in_the_stretch(tmp_path):
    path = tmp_path / "grey.mp4"
    grey = "nullsrc=s=64x48:r=25:d=6,geq=lum='50+N':cb=128:cr=128"  # brighter with each frame
    subprocess.run([ffmpeg(), "-v", "error", "-f", "lavfi", "-i", grey, str(path)], check=True, timeout=60)
    frames, _ = whole(path)
    source = Source("x", "clip", str(path), span=(3.0, 4.0))
    for seed in range(6):
        crop = read_crop(source, Crop(16, 5, None, (0.5, 1.0), 0.0, seed))
        assert frames[74].mean() < crop[0].mean() < crop[-1].mean() < frames[100].mean()
    with pytest.raises(MediaError, match="has 25 frames, shorter than one clip of 40 frames"):
        read_crop(source, Crop(16, 40, None, (1.0, 1.0), 0.0, 0))


def test_a_stretch_beyond_the_end_of_the_clip_is_refused(clips):
    for span in ((5.0, 9.0), (20.0, 21.0)):
        with pytest.raises(MediaError, match=r"ends after 6\.00 s, expected a stretch from"):
            stretch(clips("a.mp4"), span)
    found, _ = stretch(clips("a.mp4"), (0.0, 6.2))  # durations in manifests are rounded
    assert len(found) == 150


def test_an_image_has_no_stretch(tmp_path, make_image):
    source = Source("x", "image", make_image("1.png"), span=(0.0, 1.0))
    with pytest.raises(MediaError, match="is an image, expected a clip where begin and end are given"):
        list(read_pieces(source, ReadSettings(parse_size("native"), (1, 16, 16))))


def test_a_stretch_crosses_the_pipe_to_a_worker():
    source = Source("", "clip", "a.mp4", span=(1.0, 2.5))
    settings = ReadSettings(parse_size("native"), (1, 16, 16))
    assert decode_job(encode_job(source, settings)) == (source, settings)
    whole = replace(source, span=None)
    assert decode_job(encode_job(whole, settings))[0] == whole
