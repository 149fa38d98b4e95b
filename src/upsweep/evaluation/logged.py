"""An evaluation in W&B: in the run whose checkpoint was judged, or in a new one where there is no such run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from upsweep.common.names import safe_name
from upsweep.evaluation.methods import result_of
from upsweep.evaluation.tables import COSTS, Comparison, Judged, Row
from upsweep.imaging.tiles import Cell, Panel
from upsweep.runs.layout import run_of
from upsweep.tracking.reopened import reopened, said_of

EVALUATION = "evaluation"  # what all keys begin with


def log_evaluation(
    folder: Path, comparisons: Sequence[Comparison], options: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """Log tables, figures and pictures; a sentence for each run that has them now.

    A run is given the table as if its checkpoint had been judged alone (`evaluation/table`), its figures in the summary
    (`evaluation/set5_psnr`), and a table of the images of each benchmark (`evaluation/Set5`).

    Args:
        folder: of the evaluation, where a new run lies.
        comparisons: what was found.
        options: of W&B, see `reopened`.
        config: of the evaluation, for a new run.

    Raises:
        UserError: an option is wrong, or a run's record cannot be read.
    """
    owners = [_owner(row, folder) for comparison in comparisons for row in comparison.rows]
    for owner in dict.fromkeys(filter(None, owners)) or [folder]:
        parts = [part for each in comparisons if (part := _part(each, owner, folder)) is not None] or comparisons
        run = reopened(owner, options, config)
        run.log_table(f"{EVALUATION}/table", [_line(part, row) for part in parts for row in part.rows])
        run.log_summary(_figures(parts))
        images = [image for part in parts for image in part.images]
        for title in dict.fromkeys(image.benchmark for image in images):
            rows = [_row(image) for image in images if image.benchmark == title]
            run.log_table(f"{EVALUATION}/{safe_name(title)}", rows)
        run.finish(exit_code=0)
        yield from said_of(run)


def _owner(row: Row, folder: Path) -> Path | None:
    """The folder of the run that wrote a row's checkpoint, or else of the evaluation; None without a checkpoint."""
    if not row.checkpoint:
        return None
    checkpoint = Path(row.checkpoint)
    return folder if result_of(checkpoint) is None else run_of(checkpoint)


def _part(comparison: Comparison, owner: Path, folder: Path) -> Comparison | None:
    """The rows of one owner, and those without a checkpoint; None where no row is the owner's."""
    owners = {id(row): _owner(row, folder) for row in comparison.rows}
    if owner not in owners.values():
        return None
    rows = [row for row in comparison.rows if owners[id(row)] in (owner, None)]
    methods = {row.method for row in rows}
    images = [image for image in comparison.images if image.method in methods]
    return replace(comparison, rows=rows, images=images)


def _line(comparison: Comparison, row: Row) -> dict[str, Cell]:
    known = {key: value if isinstance(value, int | str) else str(value) for key, value in comparison.known.items()}
    costs = {key: getattr(row, key) for _, key, _ in COSTS}
    return {"method": row.method, **known, **comparison.values(row), **costs, "source": row.source}


def _figures(parts: Sequence[Comparison]) -> dict[str, float]:
    """The figures of the rows with a checkpoint, with the row's name where there are several."""
    rows = [(part, row) for part in parts for row in part.rows if row.checkpoint]
    names = [f"{safe_name(row.method)}/" if len(rows) > 1 else "" for _, row in rows]
    return {
        f"{EVALUATION}/{name}{header}": value
        for name, (part, row) in zip(names, rows, strict=True)
        for header, value in part.values(row).items()
    }


def _row(image: Judged) -> dict[str, Cell]:
    picture = {} if image.picture is None else {"picture": _panel(image.picture, image.image)}
    return {"image": image.image, "method": image.method, **image.values, **picture}


def _panel(file: Path, name: str) -> Panel:
    with Image.open(file) as picture:
        return Panel(name, np.asarray(picture.convert("RGB")), name)
