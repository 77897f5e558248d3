"""``grn quantize-stats``: statistics of the bits of a store."""
