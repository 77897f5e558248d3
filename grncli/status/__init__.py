"""How far the work in stores, runs, decoded files and searches is, and who does it: ``grn status``."""
