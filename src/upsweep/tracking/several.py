"""Several logs of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pytorch_lightning.loggers import Logger

from upsweep.imaging.tiles import Cell, Panel
from upsweep.tracking.run_log import RunLog


class Logs:
    """Logs of one run; each is told what the run tells."""

    def __init__(self, logs: Sequence[RunLog]) -> None:
        self.logs = list(logs)

    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        for log in self.logs:
            log.log_pictures(key, pictures, step)

    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        for log in self.logs:
            log.log_summary(values)

    def log_table(self, key: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        for log in self.logs:
            log.log_table(key, rows)

    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        for log in self.logs:
            log.log_model(checkpoint, metadata)

    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        for log in self.logs:
            log.log_data(name, digests, metadata)

    def finish(self, exit_code: int | None = None) -> None:
        for log in self.logs:
            log.finish(exit_code)


def each_of(log: RunLog | None) -> list[Logger]:
    """The loggers that Lightning is given."""
    logs = log.logs if isinstance(log, Logs) else [] if log is None else [log]
    return cast(list[Logger], logs)
