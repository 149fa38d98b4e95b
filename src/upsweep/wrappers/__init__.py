"""Take a generator, give a generator that makes the same image another way; they compose in any order."""

from upsweep.wrappers.self_ensemble import SelfEnsemble
from upsweep.wrappers.tiling import Tiled

__all__ = ["SelfEnsemble", "Tiled"]
