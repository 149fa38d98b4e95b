"""How a Lightning logger takes what has no method in Lightning's own interface: pictures, words, tables, files, data.

Each function looks at what the logger or its `experiment` can do, and gives the call, or None where there is none. So
TensorBoard, MLflow, Comet and whatever is like them need no import here.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from upsweep.common.files import as_csv
from upsweep.imaging.lettering import labelled
from upsweep.imaging.marks import marked
from upsweep.imaging.tiles import Cell, Panel
from upsweep.tracking.run_log import RunLog

TWICE = re.compile("unique|duplicate", re.IGNORECASE)  # in the words of a database that has a row already

Way = Callable[..., None]


def parameters(method: Callable[..., Any]) -> list[str]:
    """The names of what a method takes, without `self`."""
    return [*signature(method).parameters]


def experiment_of(logger: Any) -> Any:
    """The tracker's own object behind a logger; None: it has none, which Lightning allows."""
    return getattr(logger, "experiment", None)


def own(logger: Any, name: str) -> Way | None:
    """The logger's method of this name, if it takes what that of `RunLog` takes."""
    method = getattr(logger, name, None)
    if not callable(method):
        return None
    _, *wanted = parameters(getattr(RunLog, name))
    return method if parameters(method) == wanted else None


def for_pictures(logger: Any) -> Way | None:
    """`(key, pictures, step)`: Lightning's own `log_image`, or that of TensorBoard, MLflow or Comet."""
    put = _one_picture(logger, experiment_of(logger))
    if put is None:
        return None

    def put_all(key: str, pictures: Sequence[Panel], step: int | None) -> None:
        for picture in pictures:
            put(f"{key}/{picture.name}", labelled(picture.pixels, picture.labels or [picture.caption]), step)

    return put_all


def _one_picture(logger: Any, experiment: Any) -> Callable[[str, np.ndarray, int | None], None] | None:
    """`(key, pixels, step)`; pixels (H, W, 3) uint8."""
    if _can(logger, "log_image"):
        return lambda key, pixels, step: logger.log_image(key, [marked(pixels)], step=step)
    if _can(experiment, "add_image"):
        return lambda key, pixels, step: experiment.add_image(key, pixels, step, dataformats="HWC")
    if _of_a_run(experiment, "log_image"):
        return lambda key, pixels, step: experiment.log_image(logger.run_id, marked(pixels), key=key, step=step)
    if _can(experiment, "log_image"):
        return lambda key, pixels, step: experiment.log_image(marked(pixels), name=key, step=step)
    return None


def for_words(logger: Any) -> Way:
    """`(key, text)`: a text of TensorBoard, a tag of MLflow, a hyperparameter of any other."""
    experiment = experiment_of(logger)
    if _can(experiment, "add_text"):
        return lambda key, text: experiment.add_text(key, text)
    if _of_a_run(experiment, "set_tag"):
        return lambda key, text: experiment.set_tag(logger.run_id, key, text)
    return lambda key, text: logger.log_hyperparams({key: text})


def for_table(logger: Any) -> Way | None:
    """`(key, rows)`: a text of TensorBoard, a CSV file among MLflow's artifacts; of pictures their names."""
    experiment = experiment_of(logger)
    if _can(experiment, "add_text"):
        return lambda key, rows: experiment.add_text(key, _as_markdown(_lines(rows)))
    if _of_a_run(experiment, "log_text"):
        return lambda key, rows: experiment.log_text(logger.run_id, as_csv(_lines(rows)), f"{key}.csv")
    return None


def for_model(logger: Any) -> Way | None:
    """`(checkpoint, metadata)`: files among MLflow's artifacts, if the logger's own `log_model` is true."""
    experiment = experiment_of(logger)
    if not (_of_a_run(experiment, "log_artifact") and getattr(logger, "_log_model", False)):
        return None

    def keep(checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        experiment.log_artifact(logger.run_id, str(checkpoint), "model")
        experiment.log_text(logger.run_id, json.dumps(metadata, indent=2, default=str), "model/metadata.json")

    return keep


def for_data(logger: Any) -> Way | None:
    """`(name, digests, metadata)`: a data set that the run of MLflow reads."""
    experiment = experiment_of(logger)
    if not _of_a_run(experiment, "log_inputs"):
        return None

    def use(name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        from mlflow.entities import Dataset, DatasetInput
        from mlflow.exceptions import MlflowException

        digest = hashlib.sha256(json.dumps(dict(digests), sort_keys=True).encode()).hexdigest()[:16]
        about = json.dumps(metadata, default=str)
        found = Dataset(name, digest, "local", json.dumps({"images": len(digests)}), profile=about)
        inputs = [DatasetInput(found)]
        try:
            experiment.log_inputs(logger.run_id, datasets=inputs)
        except MlflowException as error:
            # MLflow looks for the set, then writes it: of two jobs that do so at once, one finds it at its second try.
            if not TWICE.search(str(error)):
                raise
            experiment.log_inputs(logger.run_id, datasets=inputs)

    return use


def _can(thing: Any, name: str) -> bool:
    return callable(getattr(thing, name, None))


def _of_a_run(thing: Any, name: str) -> bool:
    """Whether it has this method, for a run that it is told: as MLflow's client has them."""
    return _can(thing, name) and "run_id" in parameters(getattr(thing, name))


def _lines(rows: Sequence[Mapping[str, Cell]]) -> list[list[object]]:
    """The names of columns, then a line a row; of a picture its name."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines: list[list[object]] = [[*columns]]
    for row in rows:
        cells = [row.get(column) for column in columns]
        lines.append([cell.name if isinstance(cell, Panel) else cell for cell in cells])
    return lines


def _as_markdown(lines: Sequence[Sequence[object]]) -> str:
    header, *rows = [[_short(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))


def _short(cell: object) -> str:
    return "" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell).replace("|", "\\|")
