"""Numbers about what the stages made: bits, pictures, samples."""
