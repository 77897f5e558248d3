import os
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from grncli.media.clip_decoding import ffmpeg
from grncli.media.clips import count_frames, read_frames, read_header
from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.random_crops import Crop, read_crop
from grncli.media.reading import ReadSettings, parse_reading, read_pieces
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError, UsageError

STRIDE = (4, 16, 16)


def source_of(path):
    [source] = list_sources(str(path)).sources
    return source


def settings(size="native", **options):
    return ReadSettings(parse_size(size), STRIDE, **options)


def pieces(path, **options):
    return list(read_pieces(source_of(path), settings(**options)))


def frames_of(path, **options):
    with open(path, "rb") as file:
        return np.stack(list(read_frames(file.fileno(), **options)))


def reference(path, shape):
    """All frames by way of a named file and raw output, unlike the code under test."""
    command = [ffmpeg(), "-v", "error", "-i", str(path), "-sws_flags", "bicubic+accurate_rnd+full_chroma_int"]
    command += ["-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.uint8).reshape(shape)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "ts", "wmv", "flv", "ogv", "y4m"])
def test_every_container_is_read(make_clip, suffix):
    path = make_clip(f"a.{suffix}", frames=10, fps=25)
    # At a fixed rate: the Theora encoder leaves out frames in which little changed.
    assert frames_of(path, fps=25).shape == (10, 48, 64, 3)
    [piece] = pieces(path, fps=25.0)
    assert piece.pixels.shape == (9, 48, 64, 3)
    assert (piece.clip, piece.start, piece.fps, piece.frames) == (None, 0.0, 25.0, 9)


def test_frames_are_those_of_ffmpeg(make_clip):
    path = make_clip("a.mp4")
    assert np.array_equal(frames_of(path), reference(path, (-1, 48, 64, 3)))


def test_an_image_is_one_piece(make_image):
    [piece] = pieces(make_image("a.png", size=(40, 32)), size="16")
    assert piece.pixels.shape == (1, 16, 16, 3)
    assert (piece.pixels == (10, 20, 30)).all()
    assert (piece.clip, piece.start, piece.fps, piece.frames) == (None, None, None, 1)


def test_windows_follow_each_other(make_clip):
    path = make_clip("a.mp4", frames=31)
    whole = frames_of(path)
    found = pieces(path, frames=9)
    assert [piece.clip for piece in found] == [0, 1, 2]
    assert [piece.start for piece in found] == [0.0, 0.75, 1.5]
    for piece in found:
        first = 9 * piece.clip
        assert np.array_equal(piece.pixels, whole[first : first + 9])


@pytest.mark.parametrize(("clips", "numbers"), [(1, [0]), (2, [0, 4]), (3, [0, 2, 4]), (9, [0, 1, 2, 3, 4])])
def test_chosen_windows_are_spread_evenly(make_clip, clips, numbers):
    path = make_clip("a.mp4", frames=27)
    every = {piece.clip: piece.pixels for piece in pieces(path, frames=5)}
    found = pieces(path, frames=5, clips=clips)
    assert [piece.clip for piece in found] == numbers
    assert all(np.array_equal(piece.pixels, every[piece.clip]) for piece in found)


def note_of(path, **options):
    reading = read_pieces(source_of(path), settings(**options))
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def test_what_is_left_out_is_noted(make_clip):
    path = make_clip("a.mp4", frames=24)
    assert note_of(path) == "3 frames at the end left out to fit 1+4n"
    assert note_of(path, frames=9) == "6 frames at the end left out: no whole clip of 9"
    assert note_of(path, frames=9, clips=1) is None


@pytest.mark.parametrize("clips", [None, 1, 2])
def test_a_clip_shorter_than_a_window_says_so(make_clip, clips):
    path = make_clip("a.mp4", frames=24)
    with pytest.raises(MediaError, match="has 24 frames, shorter than one clip of 33 frames; use fewer --frames"):
        pieces(path, frames=33, clips=clips)


def test_a_clip_too_large_to_be_whole_says_so(make_clip, monkeypatch):
    monkeypatch.setattr("grncli.media.reading.MAX_PIECE", 100_000)
    with pytest.raises(MediaError, match="use --frames"):
        pieces(make_clip("a.mp4"))


def test_rotation_is_honoured(make_clip, tmp_path):
    plain = make_clip("plain.mp4")
    turned = tmp_path / "turned.mp4"
    command = [ffmpeg(), "-v", "error", "-display_rotation", "90", "-i", str(plain), "-c", "copy", str(turned)]
    subprocess.run(command, check=True)
    assert np.array_equal(frames_of(turned), np.rot90(frames_of(plain), axes=(1, 2)))


def test_variable_rates_are_resampled_by_time(make_clip):
    # Six frames in the first half second, then one every five: 10 frames in two seconds.
    select = "select='lt(n,6)+not(mod(n,5))'"
    path = make_clip("a.mp4", "-vf", select, "-fps_mode", "vfr", frames=24)
    coded, steady = frames_of(path), frames_of(path, fps=12)
    assert len(coded) == 9
    assert len(steady) >= 21
    assert np.array_equal(steady[0], coded[0])
    # Frame 13 shows what was on the screen then: the frame coded at position 10.
    assert np.array_equal(steady[13], coded[-3])


def test_fps_resamples_pieces(make_clip):
    [piece] = pieces(make_clip("a.mp4", frames=24, fps=24), fps=8.0)
    assert piece.fps == 8.0
    assert piece.frames == 5


def test_television_rates_are_exact(make_clip):
    with open(make_clip("a.mp4", fps=29.97), "rb") as file:
        assert read_header(file.fileno()).fps == pytest.approx(30000 / 1001, abs=1e-9)


def test_counting_agrees_with_reading(make_clip):
    with open(make_clip("a.mkv", frames=25), "rb") as file:
        for fps in (None, 5.0, 30.0):
            assert count_frames(file.fileno(), fps) == len(list(read_frames(file.fileno(), fps=fps)))


def test_longer_sound_is_no_damage(make_clip):
    path = make_clip("a.mp4", inputs=["-f", "lavfi", "-i", "sine=d=6"])
    assert len(frames_of(path)) == 24


@pytest.mark.parametrize("options", [{}, {"frames": 5}, {"frames": 5, "clips": 2}, {"fps": 6.0}])
def test_a_clip_whose_size_changes_is_refused(make_clip, tmp_path, options):
    parts = [make_clip("small.ts"), make_clip("large.ts", size="96x64")]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(MediaError, match="changes its frame size from 64x48 to 96x64 midway"):
        pieces(tmp_path / "a.ts", **options)


def test_a_clip_whose_colours_change_is_read(make_clip, tmp_path):
    parts = [make_clip(f"{layout}.ts", "-c:v", "libx264", "-pix_fmt", layout) for layout in ("yuv420p", "yuv444p")]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert len(frames_of(tmp_path / "a.ts")) > 24


def test_times_that_do_not_advance_are_no_damage(make_clip, tmp_path):
    repeat = "setts=pts='if(eq(N,5),3,N)':dts='if(eq(N,5),3,N)'"
    command = [ffmpeg(), "-v", "error", "-i", str(make_clip("plain.avi")), "-c", "copy", "-bsf:v", repeat]
    subprocess.run([*command, str(tmp_path / "a.mp4")], check=True, capture_output=True)
    assert len(frames_of(tmp_path / "a.mp4")) == 24


def test_sound_alone_is_no_clip(tmp_path):
    path = tmp_path / "a.mp4"
    subprocess.run([ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "sine=d=1", str(path)], check=True)
    with pytest.raises(MediaError, match="no picture"):
        pieces(path)


@pytest.mark.parametrize(("suffix", "share"), [("mp4", 0.6), ("mkv", 0.7), ("avi", 0.6), ("ts", 0.63), ("flv", 0.6)])
def test_a_clip_cut_short_is_damaged(make_clip, suffix, share):
    flags = ["-movflags", "+faststart"] if suffix == "mp4" else []
    path = make_clip(f"a.{suffix}", *flags, frames=48, size="128x96")
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(MediaError, match=r"decoded \d+ of about|no frame could be decoded"):
        pieces(path, frames=5)


def test_a_clip_without_its_index_is_damaged(make_clip):
    path = make_clip("a.mp4")
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(MediaError, match="moov atom not found"):
        pieces(path)


def test_pieces_before_the_damage_come_before_the_error(make_clip):
    path = make_clip("a.mp4", "-movflags", "+faststart", "-g", "4", frames=48, size="128x96")
    data = bytearray(path.read_bytes())
    start = int(len(data) * 0.8)
    data[start : start + 2000] = bytes(range(250)) * 8
    path.write_bytes(data)
    found = []
    with pytest.raises(MediaError, match=r"decoded \d+ of about 48 frames, then"):
        found.extend(read_pieces(source_of(path), settings(frames=5)))
    reading = read_pieces(source_of(path), settings(frames=5))
    assert next(reading).clip == 0


@pytest.mark.parametrize("content", [b"", b"just text\n", bytes(1000), b"RIFF\0\0\0\0AVI LIST"])
def test_what_is_no_clip_is_an_error(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError):
        pieces(tmp_path / "a.mp4")


PLAYLISTS = [
    "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n",
    "ffconcat version 1.0\nfile {target}\n",
    "ffconcat version 1.0\nfile {name}\n",
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    '<?xml version="1.0"?><MPD><Period><BaseURL>{target}</BaseURL></Period></MPD>',
]


@pytest.mark.parametrize("text", PLAYLISTS)
@pytest.mark.parametrize("suffix", ["mp4", "ts", "mkv"])
def test_a_playlist_under_another_name_reads_no_other_file(make_clip, tmp_path, text, suffix):
    target = make_clip("target.ts")
    path = tmp_path / f"trick.{suffix}"
    path.write_text(text.format(target=target, name=target.name))
    with pytest.raises(MediaError):
        pieces(path)


def test_a_pattern_in_a_name_is_only_a_name(make_clip, tmp_path, make_image):
    make_image("shot001.png")
    path = make_clip("plain.mp4").rename(tmp_path / "shot%03d.mp4")
    assert pieces(path)[0].pixels.shape == (21, 48, 64, 3)
    (tmp_path / "none%03d.mp4").write_bytes((tmp_path / "shot001.png").read_bytes())
    with pytest.raises(MediaError):
        pieces(tmp_path / "none%03d.mp4")


@pytest.mark.parametrize("name", [b"-i.mp4", b"caf\xe9.mp4", "映画.mp4".encode(), b"http:x.mp4"])
def test_any_clip_name_is_only_a_name(make_clip, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.rename(make_clip("plain.mp4", frames=5), name)
    assert pieces(os.fsdecode(name))[0].frames == 5


def test_a_gif_reads_as_image_or_clip(tmp_path):
    frames = [Image.new("L", (16, 16), 40 * i) for i in range(6)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:2])
    frames[0].save(tmp_path / "six.gif", save_all=True, append_images=frames[1:], duration=100)
    assert pieces(tmp_path / "two.gif")[0].frames == 1
    [piece] = pieces(tmp_path / "six.gif")
    assert piece.frames == 5
    assert piece.pixels[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]


def test_files_without_a_known_suffix_are_read_by_their_content(make_clip, make_image, tmp_path):
    os.rename(make_image("a.png", size=(40, 32)), tmp_path / "picture")
    os.rename(make_clip("b.mp4"), tmp_path / "clip.part")
    frames = [Image.new("L", (16, 16), 40 * i) for i in range(6)]
    frames[0].save(tmp_path / "moving", "GIF", save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(tmp_path / "named.png", "GIF", save_all=True, append_images=frames[1:], duration=100)
    assert [pieces(tmp_path / name)[0].frames for name in ("picture", "clip.part", "moving", "named.png")] == [
        1,
        21,
        5,
        1,
    ]


def test_a_picture_without_its_end_marker_has_a_note_and_gives_crops(make_image, tmp_path):
    Image.open(make_image("a.png")).save(tmp_path / "a.jpg")
    whole = read_crop(source_of(tmp_path / "a.jpg"), crop())
    assert note_of(tmp_path / "a.jpg") is None
    os.truncate(tmp_path / "a.jpg", os.path.getsize(tmp_path / "a.jpg") - 2)
    assert "end marker" in note_of(tmp_path / "a.jpg")
    assert np.array_equal(read_crop(source_of(tmp_path / "a.jpg"), crop()), whole)


def test_a_tga_is_read_from_files_and_archives(make_image, tmp_path):
    image = tmp_path / "a.tga"
    Image.open(make_image("b.png")).save(image)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(image, "a.tga")
    for path in (image, tmp_path / "x.zip"):
        assert (pieces(path)[0].pixels == (10, 20, 30)).all()
        assert (read_crop(source_of(path), crop()) == (10, 20, 30)).all()


def test_members_read_like_files(make_clip, make_image, tmp_path):
    clip, image = make_clip("a.mp4"), make_image("b.png")
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(clip, "in/a.mp4")
        archive.write(image, "in/b.png", zipfile.ZIP_STORED)
        archive.write(image, "in/c.png", zipfile.ZIP_LZMA)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(clip, "in/a.mp4")
        archive.add(image, "in/b.png")
    for path in (tmp_path / "x.zip", tmp_path / "x.tar"):
        for source in list_sources(str(path)).sources:
            [piece] = read_pieces(source, settings())
            [plain] = pieces(clip if source.kind == "clip" else image)
            assert np.array_equal(piece.pixels, plain.pixels)


def test_a_zip_written_to_a_pipe_can_be_read(make_image, tmp_path):
    class Unseekable:
        def __init__(self, file):
            self.write, self.flush = file.write, file.flush

    with open(tmp_path / "x.zip", "wb") as file:
        with zipfile.ZipFile(Unseekable(file), "w") as archive:
            archive.write(make_image("b.png"), "b.png")
    assert pieces(tmp_path / "x.zip")[0].frames == 1


def test_a_changed_member_does_not_match_its_checksum(make_image, tmp_path):
    image = tmp_path / "b.bmp"
    Image.open(make_image("b.png")).save(image)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.write(image, "b.bmp")
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[500] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(MediaError, match="checksum"):
        pieces(tmp_path / "x.zip")


@pytest.mark.parametrize("size", [10, 1 << 62])
def test_a_member_that_lies_about_its_size_is_an_error(make_image, tmp_path, size):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.png", bytes(10_000_000))
    found = source_of(tmp_path / "x.zip")
    lying = Source(found.name, found.kind, found.path, found.member, found.offset, size)
    with pytest.raises(MediaError):
        list(read_pieces(lying, settings()))


def test_files_that_cannot_be_opened_are_errors(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for name, reason in (("none.png", "No such file"), ("fifo.png", "not a plain file")):
        source = Source(name, "image", str(tmp_path / name))
        with pytest.raises(MediaError, match=reason):
            list(read_pieces(source, settings()))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error(make_image):
    path = make_image("a.png")
    os.chmod(path, 0)
    with pytest.raises(MediaError, match="Permission denied"):
        pieces(path)


def test_a_listed_problem_is_never_opened():
    with pytest.raises(MediaError, match="as listed"):
        list(read_pieces(Source("x", "image", "/dev/zero", problem="as listed"), settings()))


def crop(**options):
    return Crop(**({"size": 16, "frames": 1, "fps": None, "scale": (0.3, 1.0), "flip": 0.5, "seed": 3} | options))


def test_a_crop_follows_from_its_seed(make_clip, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    clip = make_clip("a.mp4")
    for path, options in ((tmp_path / "a.png", {}), (clip, {"frames": 5})):
        source = source_of(path)
        one = read_crop(source, crop(**options))
        assert one.shape == (options.get("frames", 1), 16, 16, 3)
        assert np.array_equal(one, read_crop(source, crop(**options)))
        assert not np.array_equal(one, read_crop(source, crop(seed=4, **options)))


def test_a_crop_of_everything_is_the_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = source_of(tmp_path / "a.png")
    assert np.array_equal(read_crop(source, crop(scale=(1, 1), flip=0.0))[0], pixels)
    assert np.array_equal(read_crop(source, crop(scale=(1, 1), flip=1.0))[0], pixels[:, ::-1])


def test_small_sources_are_enlarged(make_clip, make_image):
    assert read_crop(source_of(make_image("a.png", size=(3, 5))), crop()).shape == (1, 16, 16, 3)
    clip = source_of(make_clip("a.mp4", frames=5, size="16x16"))
    assert read_crop(clip, crop(size=64, frames=5)).shape == (5, 64, 64, 3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_random_windows_fit_the_clip(make_clip, seed, suffix):
    source = source_of(make_clip(f"a.{suffix}", frames=20, fps=25))
    assert len(read_crop(source, crop(frames=17, seed=seed))) == 17
    assert len(read_crop(source, crop(frames=9, fps=12.5, seed=seed))) == 9
    # Faster than the clip: its own rate, no frame twice.
    assert len(read_crop(source, crop(frames=17, fps=60.0, seed=seed))) == 17


def test_crops_refuse_what_is_too_short(make_clip, make_image):
    with pytest.raises(MediaError, match="has 5 frames, shorter than one clip of 9"):
        read_crop(source_of(make_clip("a.mp4", frames=5)), crop(frames=9))
    with pytest.raises(MediaError, match="is an image"):
        read_crop(source_of(make_image("a.png")), crop(frames=5))


def test_sizes_that_cut_tokens_are_refused():
    for size in ("native", "32x48"):
        assert str(parse_reading(STRIDE, size=size).framing) == size
    with pytest.raises(UsageError, match="multiples of 16"):
        parse_reading(STRIDE, size="32x40")
