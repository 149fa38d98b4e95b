"""Names of files and folders of a run or a sweep: all that one part writes and another reads."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from upsweep.common.errors import UserError

# of a run
CHECKPOINTS = "checkpoints"
BEST, LAST = Path(CHECKPOINTS) / "best.ckpt", Path(CHECKPOINTS) / "last.ckpt"
FRESH, PREVIOUS = Path(CHECKPOINTS) / "fresh.ckpt", Path(CHECKPOINTS) / "previous.ckpt"
RESULT, PROGRESS, ABOUT = "result.json", "progress.json", "about.json"
HISTORY, DIAGNOSES = "history.csv", "diagnoses.json"
IDENTITY = "identity.json"
PICTURES, CROP = "pictures", "crop.png"
WHY, WHY_PICTURE, WHY_FOLDER = "why.json", "why.png", "why"  # of src/explain.py
JOB_LOG = "job.log"  # what a job of a sweep printed
WANDB, CSV, MLFLOW = "wandb", "csv", "mlflow"
HYDRA = ".hydra"
OVERRIDES = Path(HYDRA) / "overrides.yaml"
LOCK = ".lock"

GAP = 8  # white pixels between the tiles of a crop (as in upsweep.imaging.tiles)

# of a sweep
MANIFEST, TABLE = "sweep.json", "results.csv"
PAGE, EFFECTS = "report.html", "effects.svg"
SUBMITTED = "slurm.json"  # in a job's folder: its number in SLURM

# where runs and sweeps lie by default, below the folder of the command
RUNS, SWEEPS = "outputs", "multirun"
# the name of a folder in them: its time, with microseconds
STAMP = re.compile(r"(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)-\d{6}")


def newest(home: str, holds: str | Path) -> Path | None:
    """The folder in `home` whose file `holds` was written last."""
    found = [path for path in Path(home).glob("*") if (path / holds).is_file()]
    return max(found, key=lambda path: (path / holds).stat().st_mtime, default=None)


def checkpoint_of(path: Path) -> Path:
    """The file that a path names: itself, or the best checkpoint of a run's folder.

    Raises:
        UserError: it is a folder without one.
    """
    path = path.expanduser()
    if not path.is_dir():
        return path  # a missing one is reported by whoever reads it
    for candidate in (path / BEST, path / BEST.name):
        if candidate.is_file():
            return candidate
    if (path / MANIFEST).is_file():
        job = next((f", say {file.parents[1]}" for file in sorted(path.glob(f"*/{BEST}"))), "")
        raise UserError(
            f"{path} is the folder of a sweep: give one of its jobs{job}. To evaluate or to explain all of "
            f"its jobs, give sweep={path}."
        )
    if (path / LAST).is_file():
        raise UserError(f"{path} has no {BEST}, since nothing was validated yet; give {path / LAST}.")
    raise UserError(f"{path} has no {BEST}: give a run's folder, or a .ckpt file.")


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that a checkpoint lies in; None where it lies elsewhere."""
    return checkpoint.parent.parent if checkpoint.parent.name == CHECKPOINTS else None


def sweep_of(folder: Path) -> Path | None:
    """The sweep's folder for a job's: the parent, if that holds a manifest."""
    return folder.parent if (folder.parent / MANIFEST).is_file() else None


def short_names(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own, with as many of the folders above it as tell it from the others.

    The microseconds of a folder that was named by its time are left out where no two are the same without.

    >>> short_names([Path("/a/2026-11-28_14-03-02-123456"), Path("/a/wide")])
    ['2026-11-28_14-03-02', 'wide']
    >>> short_names([Path("/a/x"), Path("/b/x"), Path("/b/y")])
    ['a/x', 'b/x', 'y']
    """
    parts = [folder.resolve().parts for folder in folders]
    names = [of[-1] for of in parts]
    short = [STAMP.sub(r"\1", name) for name in names]
    names = [brief if short.count(brief) == 1 else name for brief, name in zip(short, names, strict=True)]
    for depth in range(2, max(map(len, parts)) + 1):
        often = Counter(names)
        names = ["/".join(of[-depth:]) if often[name] > 1 else name for name, of in zip(names, parts, strict=True)]
    return names
