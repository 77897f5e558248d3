"""What a clip shows, when it shows it, and which of ffmpeg's complaints make it a damaged one."""

import os
import subprocess

import numpy as np
import pytest

from grncli.media.clip_decoding import ffmpeg
from grncli.media.clips import ClipReading, count_frames, read_frames, read_header
from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.random_crops import Crop, read_crop
from grncli.media.reading import ReadSettings, read_pieces
from grncli.runtime.errors import MediaError

# Noise makes every frame one of a kind; more of it, and clips become large.
NOISE = ["-vf", "noise=alls=8:allf=t,format=yuv420p"]


def source_of(path):
    [source] = list_sources(str(path)).sources
    return source


def read(path, **options):
    """Pieces of a clip, and the note on what was left out."""
    reading = read_pieces(source_of(path), ReadSettings(parse_size("native"), (4, 16, 16), **options))
    found = []
    while True:
        try:
            found.append(next(reading))
        except StopIteration as end:
            return found, end.value


def frames_of(path, **options):
    with open(path, "rb") as file:
        return np.stack(list(read_frames(file.fileno(), **options)))


def reference(path, layout="rgb24", decoder=()):
    """All frames by way of a named file and raw output, unlike the code under test."""
    command = [ffmpeg(), "-v", "quiet", *decoder, "-i", str(path), "-fps_mode", "passthrough"]
    command += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "-f", "rawvideo", "-pix_fmt", layout, "pipe:1"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, 48, 64, len(layout) if layout == "rgba" else 3)


def changed(path, name, change):
    """A copy under another name whose bytes are ``change`` of the bytes of ``path``."""
    copy = path.with_name(name)
    copy.write_bytes(change(path.read_bytes()))
    return copy


def assert_reads_like(path, good):
    found = frames_of(path)
    assert np.array_equal(found, frames_of(good))
    with open(path, "rb") as file:
        assert count_frames(file.fileno()) == len(found)


# Transparency


FADING = "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='4*X'"
CODECS = {
    "qtrle.mov": ["-pix_fmt", "argb"],
    "prores_ks.mov": ["-pix_fmt", "yuva444p10le"],
    "ffv1.mkv": ["-pix_fmt", "bgra"],
    "png.mov": ["-pix_fmt", "rgba"],
    "utvideo.avi": ["-pix_fmt", "gbrap"],
    "libvpx-vp9.webm": ["-pix_fmt", "yuva420p", "-cpu-used", "8"],
    "libvpx.webm": ["-pix_fmt", "yuva420p", "-auto-alt-ref", "0"],
}


@pytest.mark.parametrize("name", CODECS)
def test_transparent_pixels_are_over_white(make_clip, name):
    codec = name.partition(".")[0]
    path = make_clip(name, "-vf", FADING, "-c:v", codec, *CODECS[name], frames=3)
    # The native decoders of VP8 and VP9 leave the alpha channel out.
    rgba = reference(path, "rgba", ["-c:v", codec] if "vpx" in codec else [])
    alpha = rgba[..., 3:] / 255
    assert (alpha.min(), len(rgba)) == (0, 3)
    white = np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5)
    assert np.array_equal(frames_of(path), white)
    # All of the frame, and a half of each side: mixed with its neighbours only after it is over white.
    crop = read_crop(source_of(path), Crop(24, 2, None, (1.0, 1.0), 0.0, 0))
    assert np.abs(crop[:, :, 0].mean() - white[:2, :, 8:10].mean()) < 16


def test_an_opaque_crop_of_four_channels_is_that_of_three(make_clip):
    crops = []
    for name, layout in (("a.mkv", "bgr0"), ("b.mkv", "bgra")):
        path = make_clip(name, "-c:v", "ffv1", "-pix_fmt", layout, frames=2)
        crops.append(read_crop(source_of(path), Crop(24, 1, None, (1.0, 1.0), 0.0, 0)))
    assert np.array_equal(*crops)


def test_the_unused_byte_of_raw_pictures_is_no_alpha(make_clip):
    path = make_clip("a.avi", "-vf", "format=bgra,colorchannelmixer=aa=0", "-c:v", "rawvideo", frames=2)
    assert np.array_equal(frames_of(path), reference(path))
    assert frames_of(path).min() == 0


# Times


STRETCHED = "setpts='if(lt(N,12),N,12+(N-12)*4)/24/TB'"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_a_window_starts_when_its_first_frame_is_shown(make_clip, name):
    # Half a second at 24 frames a second, then two at 6.
    path = make_clip(name, "-vf", STRETCHED, "-fps_mode", "vfr", "-enc_time_base", "1:1000", frames=24, fps=24)
    found, _ = read(path, frames=5)
    assert [piece.start for piece in found] == pytest.approx([0, 5 / 24, 10 / 24, 1.0], abs=0.0011)
    assert [piece.fps for piece in found] == pytest.approx([24, 24, 4 / (10 / 24), 6], rel=0.01)
    [whole], _ = read(path)
    assert (whole.start, whole.frames) == (0.0, 21)
    assert whole.fps == pytest.approx(20 / (20 / 24 + 8 * 3 / 24), rel=0.01)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi", "a.flv"])
def test_a_constant_rate_is_recognised(make_clip, name):
    found, _ = read(make_clip(name, frames=36, fps=29.97, size="32x32"), frames=5)
    [rate] = {piece.fps for piece in found}
    assert rate == pytest.approx(30000 / 1001, abs=1e-9)
    assert [piece.start for piece in found] == [number * 5 / rate for number in range(7)]


def test_resampled_windows_follow_the_rate_asked_for(make_clip):
    path = make_clip("a.mkv", "-vf", STRETCHED, "-fps_mode", "vfr", frames=24, fps=24)
    found, _ = read(path, frames=5, fps=8.0)
    assert [(piece.start, piece.fps) for piece in found[:3]] == [(0.0, 8.0), (0.625, 8.0), (1.25, 8.0)]


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.mp4", "a.ts", "a.flv"])
def test_a_clip_that_begins_late_is_whole(make_clip, name):
    path = make_clip(name, "-output_ts_offset", "10", frames=24)
    assert len(frames_of(path)) == 24
    with open(path, "rb") as file:
        assert read_header(file.fileno()).duration == pytest.approx(2, abs=0.1)


def test_a_clip_that_begins_late_can_still_be_cut_short(make_clip):
    path = make_clip("a.mkv", "-output_ts_offset", "10", *NOISE, frames=48)
    os.truncate(path, path.stat().st_size * 2 // 3)
    with pytest.raises(MediaError, match=r"decoded \d+ of about 48 frames"):
        frames_of(path)


def test_windows_are_drawn_from_the_first_picture_on(make_clip, tmp_path):
    plain = make_clip("plain.mp4", *NOISE, "-g", "1", frames=24)
    command = [ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "sine=d=12", "-itsoffset", "10", "-i", str(plain)]
    subprocess.run([*command, "-c:v", "copy", "-map", "1", "-map", "0", str(tmp_path / "late.mp4")], check=True)
    with open(tmp_path / "late.mp4", "rb") as file:
        header = read_header(file.fileno())
    assert (header.first, header.duration) == pytest.approx((10, 2), abs=0.1)
    crops = [read_crop(source_of(tmp_path / "late.mp4"), Crop(16, 2, None, (1, 1), 0.0, seed)) for seed in range(4)]
    # Not all of them the first two pictures.
    assert len({crop.tobytes() for crop in crops}) > 2


# Complaints


def test_a_stale_chapter_reference_is_no_damage(make_clip, tmp_path):
    chapters = tmp_path / "chapters.txt"
    chapters.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=one\n")
    good = make_clip("good.mp4", "-map_metadata", "1", inputs=["-i", str(chapters)])
    path = changed(good, "a.mp4", lambda data: data.replace(b"chap\0\0\0\2", b"chap\0\0\0\x4d"))
    assert path.read_bytes() != good.read_bytes()
    assert_reads_like(path, good)


def test_truncated_supplements_are_no_damage(make_clip):
    good = make_clip("good.mp4", "-c:v", "libx264")

    def longer(data):
        # The length of the encoder's own note: two bytes of 255, then the rest.
        end = data.index(b"\x06\x05\xff\xff") + 4
        return data[:end] + b"\xfe" + data[end + 1 :]

    path = changed(good, "a.mp4", longer)
    assert_reads_like(path, good)


PADDED = [
    ("a.ts", [], bytes(100_000)),
    ("a.flv", [], bytes(5000)),
    ("a.y4m", ["-pix_fmt", "yuv420p"], bytes(100)),
    ("a.mkv", ["-live", "1"], bytes(100_000)),
    ("a.webm", ["-live", "1"], bytes(range(1, 200)) * 20),
]


@pytest.mark.parametrize(("name", "options", "padding"), PADDED)
def test_what_lies_behind_the_last_packet_is_no_damage(make_clip, name, options, padding):
    good = make_clip(name, *options)
    assert_reads_like(changed(good, f"padded_{name}", lambda data: data + padding), good)


HOLES = [("a.flv", []), ("a.webm", ["-live", "1", "-cluster_time_limit", "200"]), ("a.y4m", ["-pix_fmt", "yuv420p"])]


@pytest.mark.parametrize(("name", "options"), HOLES)
def test_frames_that_a_broken_container_loses_are_damage(make_clip, name, options):
    path = make_clip(name, *options, frames=48)

    def pierced(data):
        start = len(data) // 2
        return data[:start] + b"\x5a" * 300 + data[start + 300 + len(data) // 10 :]

    with pytest.raises(MediaError, match=r"decoded \d+ .*frames, then"):
        frames_of(changed(path, f"pierced_{name}", pierced))


def test_a_recording_of_unknown_length_that_is_cut_is_damaged(make_clip):
    path = make_clip("a.webm", "-live", "1", *NOISE)
    os.truncate(path, path.stat().st_size - 40)
    with pytest.raises(MediaError, match=r'decoded \d+ frames, then "File ended prematurely"'):
        frames_of(path)


@pytest.mark.parametrize("name", ["a.ts", "a.m2ts", "a.ogv", "a.y4m"])
def test_a_clip_that_does_not_say_how_long_it_is_cannot_end_inside_a_packet(make_clip, name):
    options = {"a.m2ts": ["-f", "mpegts", "-mpegts_m2ts_mode", "1"], "a.ogv": [], "a.ts": []}
    path = make_clip("a.ts" if name == "a.m2ts" else name, *options.get(name, ["-pix_fmt", "yuv420p"]), *NOISE)
    size = path.stat().st_size
    frames_of(path)
    for cut in (60, size // 3 // 192 * 192 + 60, size // 2 // 188 * 188 + 60):
        with pytest.raises(MediaError, match="decoded"):
            frames_of(changed(path, f"cut_{path.name}", lambda data, cut=cut: data[:-cut]))


def test_damage_to_the_first_picture_is_reported_once(make_clip):
    path = make_clip("a.mkv", "-c:v", "libx264", *NOISE, frames=12)
    data = bytearray(path.read_bytes())
    start = data.index(b"x264 - core") + 1000
    data[start : start + 400] = bytes(range(1, 201)) * 2
    path.write_bytes(data)
    reading = ClipReading()
    with open(path, "rb") as file, pytest.raises(MediaError, match="decoded 12 of about 12 frames, then"):
        list(read_frames(file.fileno(), reading=reading))
    assert (len(reading.times), reading.left_out) == (12, 0)


# Captures that start in the middle of a group of pictures


def capture(make_clip, *options):
    """A transport stream without its first 13 packets of picture, one group of ten and three; and all of it."""
    whole = make_clip("whole.ts", *NOISE, "-g", "10", "-bf", "2", *options, frames=36, fps=25)
    path = whole.with_name("a.ts")
    command = [ffmpeg(), "-v", "error", "-i", str(whole), "-c", "copy", "-copyinkf", "-bsf:v", r"noise=drop=lt(n\,13)"]
    subprocess.run([*command, str(path)], check=True, timeout=60)
    return path, whole


OPEN_GOP = ["-x265-params", "log-level=error:open-gop=1:keyint=10:min-keyint=10:scenecut=0:bframes=3"]
CAPTURED = {"libx264": [], "libx265": OPEN_GOP, "mpeg4": [], "mpeg2video": []}


@pytest.mark.parametrize("codec", CAPTURED)
def test_a_capture_keeps_the_frames_that_can_be_decoded(make_clip, codec):
    path, whole = capture(make_clip, "-c:v", codec, *CAPTURED[codec])
    all_frames, found = reference(whole), frames_of(path)
    assert 10 <= len(found) < 30
    assert np.array_equal(found, all_frames[-len(found) :])
    with open(path, "rb") as file:
        assert count_frames(file.fileno()) == len(found)
    if codec != "mpeg2video":  # Its decoder leaves them out without a word.
        _, note = read(path, frames=1)
        assert "frames at the start left out: what they are predicted from is missing" in note


def test_damage_behind_the_start_of_a_capture_is_damage(make_clip):
    path, _ = capture(make_clip, "-c:v", "libx264")
    data = bytearray(path.read_bytes())
    for packet in range(len(data) * 3 // 5 // 188, len(data) * 9 // 10 // 188):
        data[188 * packet + 60 : 188 * packet + 180] = bytes(range(120))
    path.write_bytes(data)
    with pytest.raises(MediaError, match=r"decoded \d+ .*frames, then"):
        frames_of(path)


def test_a_window_behind_a_seek_shows_true_pictures(make_clip):
    _, whole = capture(make_clip, "-c:v", "mpeg4")
    known = {frame.tobytes() for frame in reference(whole)}
    for start in (0.2, 0.6):
        found = frames_of(whole, start=start, frames=3)
        assert {frame.tobytes() for frame in found} <= known
