"""One reading job, and how it crosses the pipe between the run and its worker processes.

Jobs and the heads of replies are lines of JSON; the pixels follow their head as raw bytes.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from functools import lru_cache
from typing import Any

from grncli.media.clip_decoding import Alive, unwatched
from grncli.media.framing import Framing
from grncli.media.random_crops import Crop, read_crop
from grncli.media.reading import Piece, Pieces, ReadSettings, read_pieces
from grncli.media.sources import Source
from grncli.runtime.errors import MediaError

Task = ReadSettings | Crop
"""What to do with a source: read its pieces, or one crop of it."""

READY = b'{"ready":1}\n'
ALIVE = b'{"alive":1}\n'


def perform(source: Source, task: Task, alive: Alive = unwatched) -> Pieces:
    """Pieces of ``source``, or its crop as the only piece; returns a note. Raises only MediaError."""
    try:
        if isinstance(task, ReadSettings):
            return (yield from read_pieces(source, task, alive=alive))
        yield Piece(read_crop(source, task, alive=alive), None, None, None)
        return None
    except MediaError:
        raise
    except OSError as error:
        raise MediaError(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Whatever a decoder does wrong with a strange file costs that file, not the run.
        raise MediaError(f"cannot be decoded: {type(error).__name__}: {str(error)[:200]}") from error


@lru_cache(maxsize=1)
def _encode_task(task: Task) -> str:
    if isinstance(task, Crop):
        return json.dumps(["crop", *astuple(task)])
    return json.dumps(["pieces", astuple(task.framing), task.stride, task.frames, task.fps, task.clips])


def encode_job(source: Source, task: Task) -> bytes:
    """Line for a worker."""
    where = [source.kind, source.path, source.member, source.offset, source.size, source.span]
    return f"[{json.dumps(where)},{_encode_task(task)}]\n".encode()


def decode_job(line: bytes) -> tuple[Source, Task]:
    """Source (nameless: the worker needs no name) and task of a line of :func:`encode_job`."""
    (kind, path, member, offset, size, span), (verb, *values) = json.loads(line)
    source = Source("", kind, path, member, offset, size, span=None if span is None else tuple(span))
    if verb == "crop":
        side, frames, fps, scale, flip, seed = values
        return source, Crop(side, frames, fps, tuple(scale), flip, seed)
    framing, stride, frames, fps, clips = values
    return source, ReadSettings(Framing(*framing), tuple(stride), frames, fps, clips)


def encode_piece(piece: Piece) -> bytes:
    """Head of a reply; the bytes of ``piece.pixels`` follow."""
    head = {"shape": piece.pixels.shape, "clip": piece.clip, "start": piece.start, "fps": piece.fps}
    head["enlarged"] = piece.enlarged
    return json.dumps(head).encode() + b"\n"


def encode_end(error: str | None, note: str | None) -> bytes:
    """Line that closes a job."""
    return json.dumps({"error": error, "note": note}).encode() + b"\n"


def decode_head(line: bytes) -> dict[str, Any]:
    """Any line of a reply: has ``shape`` (a piece), ``error`` (the end), or ``ready`` or ``alive``."""
    head = json.loads(line)
    assert isinstance(head, dict)
    return head
