"""Measurements of what the other stages produce: bits, pictures, samples."""
