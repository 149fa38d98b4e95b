"""Latents in, images out: one architecture a file."""

from upsweep.networks.synthesisers.synthesiser import Synthesiser

__all__ = ["Synthesiser"]
