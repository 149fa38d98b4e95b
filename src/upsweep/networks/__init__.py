"""Networks of any task: what they share, one architecture a file, wrappers, and the files that hold their weights."""

from upsweep.networks.network import Network

__all__ = ["Network"]
