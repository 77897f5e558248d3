"""``python -m grncli``: the same as ``grn``."""

from grncli.cli import main

main()
