"""The row store: arrays with a row per sample, in parts written by one process each; it knows no particular rows."""
