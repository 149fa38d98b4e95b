"""Runs on disk -> tables, plots, one page. Imports no torch."""
