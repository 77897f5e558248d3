"""``grn sample``: from a generator to bits, pictures and clips, by refinement."""
