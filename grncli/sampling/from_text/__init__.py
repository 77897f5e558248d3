"""Sampling for prompts: which they are, their features, and first frames."""
