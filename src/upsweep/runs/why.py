"""Findings of src/explain.py on a run (`why.json`, and `why.png` beside it), for the report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from upsweep.metrics.figure import Figure, figures_of
from upsweep.runs.layout import WHY
from upsweep.runs.record import checked, read, values_in, write_record

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Why:
    """What was found of a network on one image.

    Attributes:
        image: its name.
        window: the square that was looked at, [x, y, side] in HR pixels; empty where there is none.
        figures: by name; one that the network does not have (a field without an end) is missing.
        declared: what the figures mean, in the order of columns: `upsweep.metrics.figure.Figure`s as plain values.
        spectrum: columns of equal length: `frequency` (1 is the highest of HR), and curves over it.
        asked: the options and the weights; an explanation with the same ones is not made again.
    """

    image: str
    window: list[int] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    declared: list[dict[str, Any]] = field(default_factory=list)
    spectrum: dict[str, list[float]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    @property
    def meanings(self) -> tuple[Figure, ...]:
        """The figures that are declared."""
        return figures_of(self.declared)

    @classmethod
    def read(cls, folder: Path) -> "Why | None":
        """The record of a run's folder; None where there is none. Raises UnreadableError."""
        return read(cls._read, folder / WHY)

    @classmethod
    def _read(cls, path: Path) -> "Why":
        said = values_in(path, VERSION)
        said["figures"] = {name: value for name, value in said["figures"].items() if value is not None}
        record = checked(cls(**said))
        record.meanings  # noqa: B018 - raises where one is not declared as it must be
        return record

    def write(self, folder: Path) -> Path:
        """Write it into a run's folder, whole or not at all."""
        return write_record(folder / WHY, VERSION, self)


def declare(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Figures as plain values."""
    return [asdict(figure) for figure in figures]
