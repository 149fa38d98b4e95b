"""What lies where in the folder of a run, or of a sweep: every name that one part writes and another reads."""

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
WANDB, CSV = "wandb", "csv"
HYDRA = ".hydra"
OVERRIDES = Path(HYDRA) / "overrides.yaml"
LOCK = ".lock"

GAP = 8  # white pixels between the tiles of a crop (as in upsweep.imaging.tiles)

# of a sweep
MANIFEST, TABLE = "sweep.json", "results.csv"
PAGE, EFFECTS = "report.html", "effects.svg"
SUBMITTED = "slurm.json"  # in a job's folder: by which number SLURM knows it

# where runs and sweeps lie by default, below the folder of the command
RUNS, SWEEPS = "outputs", "multirun"


def newest(home: str, holds: str | Path) -> Path | None:
    """Of the folders in `home` that have a file `holds`, the one where it was written last."""
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
        raise UserError(f"{path} is the folder of a sweep: name a job's folder in it (evaluate.py takes sweep={path}).")
    raise UserError(f"{path} holds no {BEST}: name a run's folder, or a .ckpt file.")


def holds_run(folder: Path) -> bool:
    """Whether a training has been saved in the folder."""
    return (folder / LAST).exists()


def sweep_of(folder: Path) -> Path | None:
    """The sweep's folder for a job's: the parent, if that holds a manifest."""
    return folder.parent if (folder.parent / MANIFEST).is_file() else None
