"""Figures of pictures and distributions, and the networks that they are measured with."""
