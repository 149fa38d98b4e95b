"""Numbers like in the papers: generators judged on benchmarks under a protocol, and the table of it."""

from upsweep.evaluation.judge import Figures, evaluate, mean

__all__ = ["Figures", "evaluate", "mean"]
