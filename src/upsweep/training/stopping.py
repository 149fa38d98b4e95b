"""The end of a training that no longer improves."""

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from upsweep.metrics.figure import figures_of


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, of a task's figure: it knows which way is better.

    Args:
        figure: as the config declares it.
        patience: epochs without an improvement.
        min_delta: what counts as one, in the figure's unit.
    """

    def __init__(self, figure: Mapping[str, Any], patience: int = 5, min_delta: float = 0.0) -> None:
        (declared,) = figures_of([figure])
        mode = "max" if declared.better == "higher" else "min"
        super().__init__(f"val/{declared.name}", min_delta, patience, mode=mode)

    def forget(self) -> None:
        """Wait as from the start: what was best so far does not count."""
        self.wait_count, self.best_score = 0, torch.tensor(-math.inf if self.mode == "max" else math.inf)
