"""Take a generator, give a generator that makes the same image another way; they compose in any order."""

from upsweep.networks.wrappers.self_ensemble import SelfEnsemble
from upsweep.networks.wrappers.tiling import Tiled

__all__ = ["SelfEnsemble", "Tiled"]
