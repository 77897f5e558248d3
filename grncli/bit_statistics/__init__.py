"""``grn quantize-stats``: what the bits of a store look like."""
