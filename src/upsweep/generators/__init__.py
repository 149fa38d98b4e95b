"""One architecture a file, built from blocks; nothing about training."""

from upsweep.generators.base import Generator

__all__ = ["Generator"]
