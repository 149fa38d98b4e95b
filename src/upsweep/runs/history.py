"""How a training went (`history.csv`): a line an epoch, whatever its logger."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upsweep.common.files import as_csv, write_whole
from upsweep.runs import record

AXES = ["epoch", "step", "seconds", "loss"]


@dataclass(frozen=True)
class Epoch:
    """One line: `epoch` counts from 1, `step` is of iterations, `seconds` of training and validation since the start.

    `loss` is the mean over the epoch's training, None where nothing was trained; `figures` are those of the validation
    by name, None where there was none.
    """

    epoch: int
    step: int
    seconds: float
    loss: float | None
    figures: dict[str, float | None] = field(default_factory=dict)


def write(file: Path, epochs: Sequence[Epoch]) -> Path:
    """Write all lines, whole or not at all: epoch, step, seconds, loss, then a column a figure."""
    names = list(dict.fromkeys(name for line in epochs for name in line.figures))
    lines = [[*(getattr(line, axis) for axis in AXES), *map(line.figures.get, names)] for line in epochs]
    return write_whole(file, as_csv([[*AXES, *names], *lines]))


def read(file: Path) -> list[Epoch]:
    """The lines of a file; none where there is no file. Raises UnreadableError: it is cut short, or no history."""
    return record.read(_epochs, file) or []


def _epochs(file: Path) -> list[Epoch]:
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines(), strict=True))
    if not rows:
        raise ValueError("it is empty")
    header, *lines = rows
    if header[: len(AXES)] != AXES:
        raise ValueError("it is no history")
    epochs = []
    for epoch, step, seconds, *numbers in lines:
        loss, *values = (float(text) if text else None for text in numbers)
        figures = dict(zip(header[len(AXES) :], values, strict=True))
        epochs.append(Epoch(int(epoch), int(step), float(seconds), loss, figures))
    return epochs
