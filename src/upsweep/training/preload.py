"""All that a training imports, for the server that forks the jobs of a sweep (`upsweep.sweeps.forkserver`)."""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

PACKAGE = Path(__file__).parents[1]
ROOMS = ("blocks", "data", "imaging", "metrics", "networks", "objectives", "runs", "tasks", "tracking", "training")

for name in (module.name for module in walk_packages([str(PACKAGE)], f"{PACKAGE.name}.")):
    if name.split(".")[1] in ROOMS:
        with suppress(ImportError):  # of an extra that is not installed
            import_module(name)
import_module("upsweep.doors.train")  # Hydra and the command line
import_module("wandb")  # which a run imports with its first value
