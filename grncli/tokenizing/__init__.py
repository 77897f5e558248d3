"""``grn tokenize``: media to a bit store."""
