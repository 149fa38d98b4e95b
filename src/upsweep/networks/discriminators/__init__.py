"""Images in, a logit each out: one architecture a file."""

from upsweep.networks.discriminators.discriminator import Discriminator

__all__ = ["Discriminator"]
