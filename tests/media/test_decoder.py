import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from grncli.media.decoder import DecoderPool, Done
from grncli.media.framing import parse_size
from grncli.media.listing import list_sources
from grncli.media.random_crops import Crop
from grncli.media.reading import Piece, ReadSettings
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError
from grncli.runtime.overlap import Prefetcher

SETTINGS = ReadSettings(parse_size("native"), (4, 16, 16))


def gone(pids, seconds=10.0):
    """Whether all processes have ended (a zombie of another parent counts as ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = []
        for pid in pids:
            try:
                with open(f"/proc/{pid}/stat") as file:
                    alive += [pid] if file.read().rpartition(")")[2].split()[0] != "Z" else []
            except OSError:
                pass
        if not alive:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def mixture(tmp_path, make_clip, make_image):
    """A directory of good and bad sources."""
    (tmp_path / "src").mkdir()
    for number in range(12):
        make_image(f"src/i{number:02}.png", (number, 2 * number, 3))
    for number in range(3):
        make_clip(f"src/c{number}.mp4", frames=10 + number)
    (tmp_path / "src" / "bad.png").write_bytes(b"no")
    (tmp_path / "src" / "bad.mp4").write_bytes(b"no")
    os.mkfifo(tmp_path / "src" / "fifo.png")
    return list_sources(str(tmp_path / "src")).sources


@pytest.fixture
def images(tmp_path, make_image):
    for number in range(40):
        make_image(f"many/{number:02}.png", (number, 0, 0))
    return list_sources(str(tmp_path / "many")).sources


def flat(events):
    return [
        (number, event.pixels.tobytes() if isinstance(event, Piece) else (event.error, event.note))
        for number, event in events
    ]


def test_the_number_of_workers_changes_nothing(mixture):
    settings = replace(SETTINGS, frames=5)
    results = []
    for workers in (0, 1, 3):
        with DecoderPool(workers) as pool:
            results.append(flat(pool.read(mixture, settings)))
    assert results[0] == results[1] == results[2]
    ends = {number: event[0] for number, event in results[0] if isinstance(event, tuple)}
    assert list(ends) == list(range(len(mixture)))
    bad = {mixture[number].relative for number, error in ends.items() if error}
    assert bad == {"bad.png", "bad.mp4", "fifo.png"}


def test_pieces_keep_what_is_known_of_them(mixture):
    clip = next(source for source in mixture if source.relative == "c1.mp4")
    with DecoderPool(1) as pool:
        (_, piece), (_, done) = pool.read([clip], replace(SETTINGS, fps=6.0))
    assert (piece.clip, piece.start, piece.fps, piece.frames) == (None, 0.0, 6.0, 5)
    assert done == Done(None, done.note)
    assert "left out" in done.note or piece.frames == 5


def test_crops_come_in_order(mixture):
    jobs = [(source, Crop(16, 1, None, (0.5, 1.0), 0.5, seed)) for seed, source in enumerate(mixture)]
    results = []
    for workers in (0, 2):
        with DecoderPool(workers) as pool:
            results.append(list(pool.crops(jobs)))
    for (source, _), inline, remote in zip(jobs, *results, strict=True):
        if isinstance(inline, MediaError):
            assert str(inline) == str(remote)
            assert source.relative in ("bad.png", "bad.mp4", "fifo.png")
        else:
            assert np.array_equal(inline, remote)


def test_a_crashed_worker_costs_one_source(images):
    with DecoderPool(2) as pool:
        events = []
        for number, event in pool.read(images, SETTINGS):
            events.append((number, event))
            if (number, type(event)) == (4, Done):
                os.kill(pool._workers[1].pid, signal.SIGKILL)
    errors = {number: event.error for number, event in events if isinstance(event, Done) and event.error}
    read = [number for number, event in events if isinstance(event, Piece)]
    # Answers already in the pipe still count; at most one source is lost, and none is repeated.
    assert len(errors) <= 1
    assert all(error == "the decoding process was killed by signal 9" for error in errors.values())
    assert sorted([*read, *errors]) == list(range(40))
    for number, event in events:
        if isinstance(event, Piece):
            assert event.pixels[0, 0, 0, 0] == number


def test_signals_to_the_whole_job_reach_workers_without_harm(images):
    """Slurm sends SIGUSR1 before the end of the time to every process of a step."""
    with DecoderPool(1) as pool:
        reading = pool.read(images[:12], SETTINGS)
        events = [next(reading)]
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            os.kill(pool._workers[0].pid, number)
        events += reading
    assert [event.error for _, event in events if isinstance(event, Done)] == [None] * 12


def test_a_stalled_source_is_given_up(images, descendants):
    with DecoderPool(1, timeout=0.5) as pool:
        reading = pool.read(images[:12], SETTINGS)
        next(reading)
        stopped = pool._workers[0].pid
        os.kill(stopped, signal.SIGSTOP)
        ends = [event for _, event in reading if isinstance(event, Done)]
    errors = [end.error for end in ends if end.error]
    assert len(ends) == 12
    assert len(errors) <= 1
    assert all(error == "stalled: nothing was decoded for 0.5 s; given up" for error in errors)
    assert gone([stopped, *descendants()])


def test_a_stalled_reading_can_be_abandoned(images, descendants):
    before = set(descendants())
    pool = DecoderPool(2)
    reading = pool.read(images, SETTINGS)
    next(reading)
    for pid in descendants():
        os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.3, pool.abandon).start()
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="abandoned"):
        list(reading)
    assert time.monotonic() - began < 5
    assert set(descendants()) <= before


@pytest.mark.parametrize("workers", [0, 2])
def test_an_abandoned_pool_reads_again_only_when_closed(images, workers):
    with DecoderPool(workers) as pool:
        pool.abandon()
        with pytest.raises(RuntimeError, match="abandoned"):
            next(pool.read(images, SETTINGS))
        pool.close()
        assert len(list(pool.read(images, SETTINGS))) == 80


def test_a_stopped_consumer_does_not_wait_for_a_stalled_source(images, descendants):
    stalled = threading.Event()

    def reading(pool):
        for event in pool.read(images, SETTINGS):
            yield event
            for pid in descendants():
                os.kill(pid, signal.SIGSTOP)
            stalled.set()

    before = set(descendants())
    began = time.monotonic()
    with DecoderPool(1) as pool:
        with Prefetcher(reading(pool), stop_when=lambda _: stalled.is_set(), abandon=pool.abandon) as arriving:
            assert 0 < len(list(arriving)) < 80
    assert time.monotonic() - began < 20
    assert set(descendants()) <= before


def test_a_stalled_ffmpeg_is_given_up(make_clip, images, descendants):
    clip = Source("c", "clip", str(make_clip("long.mp4", frames=2000, fps=25)))
    errors = {1: None}
    for _ in range(5):  # on a busy machine ffmpeg may end before it is stopped
        if errors[1] is not None:
            break
        with DecoderPool(1, timeout=1.0) as pool:
            reading = pool.read([images[0], clip, images[1]], SETTINGS)
            found = [next(reading), next(reading)]
            end = time.monotonic() + 20
            while time.monotonic() < end:
                children = descendants(pool._workers[0].pid)
                if children:
                    break
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            found += list(reading)
        errors = {number: event.error for number, event in found if isinstance(event, Done)}
    assert errors == {0: None, 1: "stalled: nothing was decoded for 1 s; given up", 2: None}
    assert gone(children)


def test_slow_is_not_stalled(make_clip):
    clip = make_clip("long.mp4", "-preset", "ultrafast", frames=4000, fps=25, size="160x120")
    with DecoderPool(1, timeout=0.6) as pool:
        settings = ReadSettings(parse_size("16"), (4, 16, 16))
        started = time.monotonic()
        events = list(pool.read([Source("c", "clip", str(clip))], settings))
        assert events[-1][1].error is None
        assert events[0][1].frames == 3997
    if time.monotonic() - started < 0.7:
        pytest.skip("this machine is too fast for the test to show anything")


def test_a_consumer_that_stops_leaves_nothing_behind(mixture, descendants):
    before = set(descendants())
    with DecoderPool(2) as pool:
        next(pool.read(mixture, SETTINGS))
    assert set(descendants()) <= before


def test_a_consumer_that_fails_leaves_nothing_behind(mixture, descendants):
    before = set(descendants())

    def consume():
        with DecoderPool(2) as pool:
            for _ in pool.read(mixture, SETTINGS):
                raise ValueError("consumer")

    with pytest.raises(ValueError, match="consumer"):
        consume()
    assert set(descendants()) <= before


def test_a_second_reading_ends_the_first(images):
    with DecoderPool(2) as pool:
        first = pool.read(images, SETTINGS)
        next(first)
        assert len(list(pool.read(images, SETTINGS))) == 80
        with pytest.raises(RuntimeError, match="was ended"):
            next(first)


def test_workers_end_with_a_killed_run(make_clip, descendants, tmp_path):
    make_clip("long.mp4", "-preset", "ultrafast", frames=2000, fps=25, size="160x120")
    script = """
        import sys
        from grncli.media.decoder import DecoderPool
        from grncli.media.framing import parse_size
        from grncli.media.reading import ReadSettings
        from grncli.media.sources import Source
        pool = DecoderPool(2)
        sources = [Source("a", "clip", sys.argv[1])] * 4
        for event in pool.read(sources, ReadSettings(parse_size("native"), (4, 16, 16), frames=5)):
            print("read", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "long.mp4")]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdout.readline() == b"read\n"
    below = descendants(run.pid)
    assert len(below) >= 3
    run.kill()
    run.communicate()
    assert gone(below)


def test_memory_does_not_grow_with_the_number_of_sources(images, tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(images[0].path, "a.png")

    def peak(count):
        script = f"""
            import resource
            from grncli.media.decoder import DecoderPool
            from grncli.media.framing import parse_size
            from grncli.media.reading import ReadSettings
            from grncli.media.listing import list_sources
            [source] = list_sources({str(path)!r}).sources
            with DecoderPool(2) as pool:
                for _ in pool.read((source for _ in range({count})), ReadSettings(parse_size("native"), (4, 16, 16))):
                    pass
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        """
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=True)
        return np.array(done.stdout.split(), int)

    assert (peak(8000) - peak(500) < 8 * 1024).all()


def test_importing_the_worker_is_light():
    code = "import sys, grncli.media.worker; print('torch' in sys.modules, 'imageio_ffmpeg' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["False", "False"]
