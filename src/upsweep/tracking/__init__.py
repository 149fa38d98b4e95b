"""Where the numbers and pictures of a run go: W&B, CSV files, any Lightning logger."""
