"""Run directories: recipes, checkpoints, opening the networks in them, importing released weights, exporting."""
