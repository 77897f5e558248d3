"""``grn captions``: captions of an existing bit store."""
