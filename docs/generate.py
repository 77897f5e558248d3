"""Write the pages that follow from the program: its commands, its Python calls, recipes and
their fields.

python docs/generate.py            writes them
python docs/generate.py --check    names those that are not up to date, and exits with 1
"""

import sys
from pathlib import Path

from api_pages import api_pages
from command_pages import command_pages
from recipe_pages import recipe_pages

DOCS = Path(__file__).parent
GENERATED = "<!-- Written by docs/generate.py: change the program, then run it again. -->\n\n"


def main() -> None:
    """Write or check every generated page; a page of a command that is gone is removed."""
    pages = {
        DOCS / name: GENERATED + text for name, text in {**command_pages(), **recipe_pages(), **api_pages()}.items()
    }
    gone = set((DOCS / "commands").glob("*.md")) - pages.keys()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in sorted([*stale, *gone]):
            print(f"{path.relative_to(DOCS.parent)} is not what the program says: run python docs/generate.py")
        sys.exit(1 if stale or gone else 0)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages[path], encoding="utf-8")
    for path in gone:
        path.unlink()
    print(f"{len(stale)} of {len(pages)} pages written, {len(gone)} removed")


if __name__ == "__main__":
    main()
