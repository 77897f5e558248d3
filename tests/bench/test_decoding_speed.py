"""Media read by `DecoderPool` beside plain Pillow and ffmpeg in as many processes: pytest -m bench -s tests/bench."""

import statistics
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grncli.media.clip_decoding import ffmpeg
from grncli.media.decoder import DecoderPool
from grncli.media.framing import Framing, frame_array, frame_image, parse_size
from grncli.media.listing import list_sources
from grncli.media.reading import Piece, ReadSettings
from grncli.media.writing import write_mp4
from grncli.runtime.system import usable_cores

pytestmark = pytest.mark.bench

STRIDE = (1, 8, 8)
PAIRS = 5


def landscape(height: int, width: int) -> np.ndarray:
    """Smooth shapes with grain, which JPEG and H.264 take about as many bits for as for photographs."""
    generator = np.random.default_rng(0)
    heights = generator.normal(0, 1, (height, width, 3)).cumsum(0).cumsum(1)
    grain = generator.integers(-12, 12, heights.shape)
    return np.clip((heights - heights.min()) / np.ptp(heights) * 255 + grain, 0, 255).astype(np.uint8)


def plain_picture(path: str, framing: Framing) -> int:
    with Image.open(path) as image:
        return np.array(frame_image(image.convert("RGB"), framing, STRIDE)).nbytes


def plain_clip(path: str, framing: Framing, height: int, width: int) -> int:
    """With the conversion to RGB that our reading asks for, since its faster default is another."""
    words = [ffmpeg(), "-v", "error", "-threads", "2", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    words += ["-sws_flags", "bicubic+accurate_rnd+full_chroma_int", "pipe:1"]
    data = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    frames = np.frombuffer(data, np.uint8).reshape(-1, height, width, 3)
    return np.stack([frame_array(frame, framing, STRIDE) for frame in frames]).nbytes


def compare(name: str, folder: Path, size: str, plain: object, *shape: int) -> None:
    """Print both rates, and the median ratio of pairs that alternate, so that other work weighs on both."""
    sources, settings = list_sources(str(folder)).sources, ReadSettings(parse_size(size), STRIDE)
    paths, count = [source.path for source in sources], usable_cores()
    extra = [[value] * len(paths) for value in (settings.framing, *shape)]
    with DecoderPool(count) as pool, ProcessPoolExecutor(count) as others:

        def ours() -> float:
            began = time.perf_counter()
            assert sum(isinstance(event, Piece) for _, event in pool.read(sources, settings)) == len(sources)
            return time.perf_counter() - began

        def theirs() -> float:
            began = time.perf_counter()
            assert all(others.map(plain, paths, *extra, chunksize=4))
            return time.perf_counter() - began

        ours(), theirs()
        times = [(ours(), theirs()) for _ in range(PAIRS)]
    ratio = statistics.median(plainly / pooled for pooled, plainly in times)
    pooled, plainly = (len(sources) / min(column) for column in zip(*times, strict=True))
    print(f"\n{name:36s} {pooled:8.1f} /s, plain {plainly:8.1f} /s, ratio {ratio:.2f} ({count} processes)", end="")


@pytest.mark.parametrize(
    ("height", "width", "size", "count"),
    [(32, 32, "32", 2000), (64, 64, "64", 2000), (375, 500, "256", 200), (1500, 2000, "256", 24)],
)
def test_pictures_beside_pillow(tmp_path: Path, height: int, width: int, size: str, count: int) -> None:
    pixels = landscape(height + 64, width + 64)
    for number in range(count):
        y, x = number % 64, number * 7 % 64
        picture = Image.fromarray(pixels[y : y + height, x : x + width])
        picture.save(tmp_path / f"{number:05d}.jpg", quality=90)
    compare(f"JPEG {width}x{height} to {size}", tmp_path, size, plain_picture)


@pytest.mark.parametrize(
    ("frames", "height", "width", "size", "count"),
    [(17, 64, 64, "native", 24), (81, 256, 256, "native", 6), (49, 480, 832, "256", 4)],
)
def test_clips_beside_ffmpeg(tmp_path: Path, frames: int, height: int, width: int, size: str, count: int) -> None:
    pixels = landscape(height + frames, width + frames)
    moving = np.stack([pixels[t : t + height, t : t + width] for t in range(frames)])
    for number in range(count):
        write_mp4(tmp_path / f"{number}.mp4", moving, 16)
    compare(f"{frames} frames of {width}x{height}, {size}", tmp_path, size, plain_clip, height, width)
