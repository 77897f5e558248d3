"""The networks: plain modules that take and return tensors."""
