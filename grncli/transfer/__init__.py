"""``grn copy``: stores and run directories to and from URLs, with checksums."""
