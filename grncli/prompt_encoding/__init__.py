"""``grn encode-text``: prompts to a features store."""
