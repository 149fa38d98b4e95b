"""Losses, where torch has none."""
