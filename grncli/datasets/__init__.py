"""Bit stores as datasets of PyTorch, for training loops other than ``grn train-gen``."""
