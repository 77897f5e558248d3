"""``grn shapes``: write the embedded data set."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from grncli.cli import options
from grncli.cli.console import Progress, guarded, make_stop, print_json, say, works_alone
from grncli.cli.help_pages import examples
from grncli.runtime.text import counted


@examples(
    "grn shapes pictures --images 7200 --clips 0 --size 32",
    "# Clips too, with what they show in words beside them",
    "grn shapes media --images 512 --clips 64 --captions",
)
@guarded
def shapes(
    folder: Annotated[Path, Argument(metavar="DIR", help="Folder to write into.", show_default=False)],
    images: Annotated[int, Option(metavar="N", min=0, help="Pictures.")] = 512,
    clips: Annotated[int, Option(metavar="N", min=0, help="Clips.")] = 64,
    size: Annotated[int, Option(metavar="PIXELS", min=16, max=1024, help="Height and width in pixels.")] = 32,
    frames: Annotated[int, Option(metavar="N", min=1, help="Frames of a clip.")] = 17,
    fps: Annotated[float, Option(metavar="F", min=0.1, help="Frames a second.")] = 8.0,
    seed: Annotated[int, Option(metavar="N", help="Seed of the pictures.")] = 0,
    drawn: Annotated[
        Literal["easy", "hard"],
        Option("--set", help="Large upright shapes on smooth ground, or small turned ones on mottled ground."),
    ] = "easy",
    captions: Annotated[
        bool, Option("--captions", help="Write 00000.txt beside each drawing: what it shows, in five wordings.")
    ] = False,
    groups: Annotated[
        int, Option(metavar="N", min=0, help="Pictures of four small figures, in DIR/images/four-figures.")
    ] = 0,
    without: Annotated[
        str, Option(metavar="red-star,...", help="Combinations of colour and shape that are left out.")
    ] = "",
    overwrite: Annotated[bool, options.overwrite("Replace a folder made with other settings.")] = False,
    json: options.Json = False,
) -> None:
    """Draw labelled pictures and clips of moving shapes.

    They serve to try everything without a download. What is written:
    DIR/images/COLOUR-SHAPE/*.png and DIR/clips/COLOUR-SHAPE-DIRECTION/*.mp4; the folder names are the classes.
    """
    works_alone()
    from grncli.calls.shapes_call import draw_shapes

    with Progress("shapes", "files") as progress:
        draw_shapes(
            folder,
            set=drawn,
            images=images,
            clips=clips,
            size=size,
            frames=frames,
            fps=fps,
            seed=seed,
            captions=captions,
            groups=groups,
            without=tuple(name for name in without.replace(" ", "").split(",") if name),
            overwrite=overwrite,
            progress=progress.monitor(make_stop()),
        )
    if json:
        print_json({"out": str(folder), "images": images, "groups": groups, "clips": clips, "size": size})
    say(f"{folder}: {counted(images + groups, 'picture')} and {counted(clips, 'clip')} of {size}x{size}")
