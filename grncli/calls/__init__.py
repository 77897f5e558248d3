"""The commands as Python functions: their options as keyword arguments, a summary of what was made as the result."""
