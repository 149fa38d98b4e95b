"""How a training went (`history.csv`): a line an epoch, whatever its logger."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upsweep.common.files import as_csv, write_whole
from upsweep.runs import record

AXES = ["epoch", "step", "seconds", "loss"]
OTHER = "loss_"  # what the column of another player's loss has before its name
VAL = "val/"  # what the key of a figure has before its name, and its column where the name alone would be one of those


@dataclass(frozen=True)
class Epoch:
    """One line: `epoch` counts from 1, `step` is of iterations, `seconds` of training and validation since the start.

    `loss` is the mean over the epoch's training (over its last part, where a limit had cut it and it went on), None
    where nothing was trained; `figures` are those of the validation
    by name, None where there was none. `losses` are those of players beside the generator, by name (`discriminator`).
    """

    epoch: int
    step: int
    seconds: float
    loss: float | None
    figures: dict[str, float | None] = field(default_factory=dict)
    losses: dict[str, float | None] = field(default_factory=dict)

    @property
    def columns(self) -> dict[str, float | None]:
        """All numbers by the names of their columns."""
        losses = {f"{OTHER}{name}": value for name, value in self.losses.items()}
        figures = {_column(name): value for name, value in self.figures.items()}
        return {**{axis: getattr(self, axis) for axis in AXES}, **losses, **figures}


def _column(figure: str) -> str:
    return f"{VAL}{figure}" if figure in AXES or figure.startswith(OTHER) else figure


def write(file: Path, epochs: Sequence[Epoch]) -> Path:
    """Write all lines, whole or not at all: epoch, step, seconds, loss, other losses, then a column a figure."""
    lines = [line.columns for line in epochs]
    header = list(dict.fromkeys([*AXES, *(name for line in lines for name in line)]))
    return write_whole(file, as_csv([header, *(list(map(line.get, header)) for line in lines)]))


def read(file: Path) -> list[Epoch]:
    """The lines of a file; none where there is no file. Raises UnreadableError: it is cut short, or not a history."""
    return record.read(_epochs, file) or []


def _epochs(file: Path) -> list[Epoch]:
    rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines(), strict=True))
    if not rows:
        raise ValueError("it is empty")
    header, *lines = rows
    if header[: len(AXES)] != AXES:
        raise ValueError("it is not a history")
    epochs = []
    for epoch, step, seconds, *numbers in lines:
        loss, *values = (float(text) if text else None for text in numbers)
        said = dict(zip(header[len(AXES) :], values, strict=True))
        losses = {name.removeprefix(OTHER): value for name, value in said.items() if name.startswith(OTHER)}
        figures = {name.removeprefix(VAL): v for name, v in said.items() if not name.startswith(OTHER)}
        epochs.append(Epoch(int(epoch), int(step), float(seconds), loss, figures, losses))
    return epochs
