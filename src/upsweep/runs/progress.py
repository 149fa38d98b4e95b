"""The progress of a running job (`progress.json`), for displays of the sweep."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from upsweep.runs.layout import PROGRESS
from upsweep.runs.record import found, values_in, write_record

VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Progress:
    """`epoch` of `epochs` done, `step` of `steps` in all; `figures` are the latest, by name; times in seconds."""

    state: str = "starting"
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    started_at: float = field(default_factory=time.time)
    seconds_left: float | None = None

    def write(self, folder: Path) -> Path:
        """Write `progress.json` into `folder`, whole or not at all. Callers keep to twice a second at most."""
        return write_record(folder / PROGRESS, VERSION, self)

    @classmethod
    def read(cls, folder: Path) -> "Progress | None":
        """The record in `folder`; None if there is none that can be read, since a sweep does not stop for that."""
        return found(lambda path: cls(**values_in(path, VERSION)), folder / PROGRESS)
