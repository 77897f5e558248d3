"""What `recipes/demo.sh` reached, from the reports in its directory; with a sheet of a sample of each class.

python recipes/demo_report.py demo
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from grncli.demo.shape_sets import SETS
from grncli.media.writing import contact_sheet, write_png

# Report, what it is about, and the share of right classes in per cent that the demo is made to reach.
MEASURED = (
    ("held-out", "held-out drawings", 99.0),
    ("decoded", "the same through the tokenizer", 99.0),
    ("samples", "samples of the generator", 97.0),
)


def main() -> None:
    """Draw the sheet and print a line for each report."""
    folder = Path(sys.argv[1])
    drawn = SETS["easy"]
    rows = [[f"{colour}-{shape}" for colour in drawn.colours] for shape in drawn.shapes]
    pictures = [[np.array(Image.open(first(folder / "samples" / name))) for name in row] for row in rows]
    sheet = folder / "samples.png"
    write_png(sheet, contact_sheet(pictures, cell=64, gap=8))
    print(f"A sample of each class: {sheet}; the others: {folder / 'samples'}/CLASS/*.png")
    print("Colour and shape both right, as a classifier of drawings sees them:")
    for name, what, promised in MEASURED:
        found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        share = 100 * next(figure["value"] for figure in found["figures"] if figure["metric"] == "class-accuracy")
        below = "" if share >= promised else f", below the {promised:g} % expected"
        print(f"  {what:<32}{share:5.1f} % of {found['samples']['count']}{below}")


def first(folder: Path) -> Path:
    """The first picture in a folder."""
    return min(folder.glob("*.png"))


if __name__ == "__main__":
    main()
