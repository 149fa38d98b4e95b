"""The interface of a run's log for the training code: a Lightning logger with these methods in addition."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from upsweep.imaging.tiles import Cell, Panel


@runtime_checkable
class RunLog(Protocol):
    """The methods of a run's log beside Lightning's `log_metrics`."""

    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Log every picture under `key/<its name>`, with its caption, at `step`."""

    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Record values that a run has once: parameters, multiply-adds, state."""

    def log_table(self, key: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Log rows of named cells, each a number, a word or a picture (Panel), at the end of a run."""

    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Keep the best checkpoint of a run where the log keeps models, with its figures and choices."""

    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        """Say which images a run reads: their names and digests, no pixels."""

    def finish(self, exit_code: int | None = None) -> None:
        """Close the run; a code other than 0 marks it as failed. None: failed if Lightning said so."""
