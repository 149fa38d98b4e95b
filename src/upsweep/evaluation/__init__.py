"""Numbers like in the papers: generators judged on benchmarks under a protocol, and the table of it."""

from upsweep.tasks.super_resolution.judging import Figures, evaluate, mean

__all__ = ["Figures", "evaluate", "mean"]
