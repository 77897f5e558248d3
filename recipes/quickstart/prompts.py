"""Prompts of the demo: those of the combinations that captions showed, and of those that none did.

python prompts.py red-star,yellow-cross DIR
"""

import sys
from pathlib import Path

from grncli.demo.shape_sets import SETS
from grncli.demo.wordings import captions_of


def main() -> None:
    """Write a list of prompts of each kind, every wording of every combination."""
    unseen, folder = sys.argv[1].split(","), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    seen = [name for name in SETS["easy"].image_classes if name not in unseen]
    for kind, names in (("seen", seen), ("unseen", unseen)):
        text = "".join(f"{caption}\n" for name in names for caption in captions_of(name))
        (folder / f"{kind}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
