"""``grn shapes``: drawings to try everything on."""
