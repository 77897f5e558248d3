"""``grn decode``: bits to pictures and clips."""
