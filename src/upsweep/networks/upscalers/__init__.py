"""LR image -> SR image: one architecture a file, built from blocks; nothing about training."""

from upsweep.networks.upscalers.upscaler import Upscaler

__all__ = ["Upscaler"]
