"""Pictures that a report shows, each with its name: what they are, before any page is made of them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from grncli.media.writing import Frames

LARGEST = 256  # longest side, in pixels, of a picture on a page


@dataclass(frozen=True)
class Shown:
    """A sample on a page.

    Attributes
    ----------
    pictures : uint8 ``[H, W, 3]`` each: the sample, or its original and what came back
    name : of its file, or its key in a store
    detail : what is to be said of it, "" for nothing
    """

    pictures: Sequence[Frames]
    name: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """Samples under one heading; ``labels`` name the pictures of each, where it has several."""

    title: str
    note: str
    samples: Sequence[Shown]
    labels: Sequence[str] = ()


def thumbnail(pixels: Frames) -> Frames:
    """uint8 ``[H, W, 3]``, shrunk to `LARGEST` where it is larger."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def short_name(name: str, src: str) -> str:
    """The name of a sample without the source that all share."""
    return name.removeprefix(src).lstrip(":/ ") or name


def as_png(pixels: Frames) -> str:
    """uint8 ``[H, W, 3]`` as a PNG file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def from_png(text: str) -> Frames:
    """What `as_png` was given."""
    with Image.open(io.BytesIO(base64.b64decode(text))) as picture:
        return np.asarray(picture)
