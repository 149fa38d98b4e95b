"""Runs, on disk or at W&B, as tables, plots and pages. Imports no torch."""
