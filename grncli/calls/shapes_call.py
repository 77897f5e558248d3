"""``grncli.draw_shapes``: the embedded data set."""

from pathlib import Path
from typing import Literal, TypedDict, Unpack

from grncli.calls.option_forms import Place, Progress, following, takes_options
from grncli.demo.shapes_folder import ShapesSettings, ShapesSummary, write_shapes


class ShapesOptions(TypedDict, total=False):
    """The options of ``grn shapes``."""

    set: Literal["easy", "hard"]  # large upright shapes on smooth ground, or small turned ones on mottled ground
    images: int  # how many pictures
    clips: int  # how many clips
    size: int  # height and width in pixels
    frames: int  # of a clip
    fps: float  # frames a second of clips
    seed: int  # of the drawings
    captions: bool  # a text file beside each drawing
    groups: int  # pictures of four small figures
    without: tuple[str, ...]  # combinations that are left out, such as ("red-star",)


@takes_options(ShapesSettings)
def draw_shapes(
    out: Place, *, overwrite: bool = False, progress: Progress = None, **options: Unpack[ShapesOptions]
) -> ShapesSummary:
    """Draw labelled pictures and clips of moving shapes, as ``grn shapes`` does: to try everything without a download.

    Parameters
    ----------
    out : folder to make, or to complete; below it ``images/CLASS/*.png`` and ``clips/CLASS/*.mp4``
    overwrite : replace a folder made with other settings
    progress : called with (files there, files in all, a note), or a `Monitor`
    options : those of the command; `ShapesOptions` says what each is

    Raises
    ------
    UsageError
        If a setting cannot be drawn, or the folder holds anything else.
    """
    return write_shapes(Path(out), ShapesSettings(**options), overwrite=overwrite, monitor=following(progress))
