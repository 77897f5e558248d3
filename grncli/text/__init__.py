"""Texts that samples are made of."""
