"""The interface of a run's log for the training code: a Lightning logger with these methods in addition."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from upsweep.imaging.tiles import Panel


@runtime_checkable
class RunLog(Protocol):
    """The methods of a run's log beside Lightning's `log_metrics`."""

    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Log every picture under `key/<its name>`, with its caption, at `step`."""

    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Record values that a run has once: parameters, multiply-adds, state."""

    def finish(self, exit_code: int | None = None) -> None:
        """Close the run; a code other than 0 marks it as failed. None: failed if Lightning said so."""
