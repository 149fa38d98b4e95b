"""What a job needs on a node that does not see the launcher's folders: code, and a command line that holds there."""

import os
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from upsweep.common.commands import SCRIPTS, in_checkout
from upsweep.runs.layout import CHECKPOINTS, RUNS, SWEEPS, WANDB, checkpoint_of
from upsweep.sweeps.node import Site
from upsweep.sweeps.overrides import plain, quoted
from upsweep.sweeps.resuming import absolute
from upsweep.tracking.weights import names_weights

EXCLUDED = [".?*", "__pycache__", "*.egg-info", "*.ckpt", RUNS, SWEEPS, WANDB, CHECKPOINTS, "node_modules", "venv"]
OURS = ("WANDB_", "MLFLOW_", "UPSWEEP_", "HYDRA_")  # variables of the launcher's that its jobs are given
PLACES = ("hydra.run.dir", "hydra.sweep.dir", "resume")  # of a job, which are given as whole paths
FLAGS = ("--config-path", "--config-dir")


def pack(stage: Path, command: Sequence[str]) -> list[str]:
    """Lay links to the code that a job's command line uses below `stage`, each under its whole path.

    That is upsweep, the script's folder, folders of configs, and what PYTHONPATH names. Gives the folders below
    `stage` in which Python is to look for modules.
    """
    packages = [SCRIPTS / name for name in ("upsweep", "hydra_plugins")]
    code = [SCRIPTS, SCRIPTS.parent / "conf"] if in_checkout() else packages
    paths = python_path()
    wanted = [*code, *_script(command), *(Path(value) for _, value in _configs(command)), *paths]
    for place in _outermost(path for path in wanted if path.exists()):
        link = below(stage, place)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)
    return [str(below("", path)).lstrip("/") for path in (*paths, SCRIPTS)]


def below(place: str | Path, path: Path) -> Path:
    """A whole path below a folder: `/stage` and `/home/me` give `/stage/home/me`; "" changes nothing."""
    return Path(f"{place}{path}")


def python_path() -> list[Path]:
    """The folders that PYTHONPATH names, with whole paths; not those of the Python that runs."""
    said = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    folders = [Path.cwd() / folder for folder in said]
    return [folder for folder in folders if folder.is_dir() and not folder.is_relative_to(sys.prefix)]


def environment(site: Site) -> dict[str, str]:
    """Variables that a job is given on a node, beside the node's own."""
    given = {name: value for name, value in os.environ.items() if name.startswith(OURS) and name != "UPSWEEP_TELL"}
    paths = [*python_path(), *([SCRIPTS] if site.home else [])]
    return given | {"PYTHONPATH": os.pathsep.join(str(below(site.home, path)) for path in paths)}


def translated(command: Sequence[str], site: Site) -> tuple[list[str], dict[str, Path]]:
    """A job's command line as it holds on a node, and the launcher's files that it needs there, by their path there.

    Checkpoints that the job starts from, or learns from, travel. Other relative paths become whole ones: of the node's
    own files.
    """
    _, *arguments = command
    if not site.home:
        return [site.python, *arguments], {}
    said, files = list[str](), dict[str, Path]()
    configs = dict(_configs(command))
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if argument in configs:
            value = str(below(site.home, Path(configs[argument])))
        elif key in PLACES and value != "null":
            value = quoted(str(below(site.scratch, Path(plain(value)))))
        elif names_weights(key) and (path := Path(plain(value)).expanduser()).exists():
            path = checkpoint_of(path).absolute()
            there = below(site.scratch, path)
            files[str(there)], value = path, quoted(str(there))
        elif equals:
            key, equals, value = absolute(argument, Path.cwd()).partition("=")
        said.append(f"{key}{equals}{value}")
    if _script(command):
        said[0] = str(below(site.home, Path(os.path.normpath(arguments[0]))))
    return [site.python, *said], files


def _script(command: Sequence[str]) -> list[Path]:
    """The folder of the script that a command line runs; the script alone where that folder is one of commands."""
    if command[1] == "-m":
        return []
    script = Path(os.path.normpath(command[1]))
    return [script if script.parent == Path(sysconfig.get_path("scripts")) else script.parent]


def _configs(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The arguments that name a folder of configs, with that folder."""
    for argument in command:
        flag, _, value = argument.partition("=")
        if flag in FLAGS and value.startswith("/"):
            yield argument, value


def _outermost(paths: Iterator[Path]) -> list[Path]:
    kept = list[Path]()
    for path in sorted(set(paths), key=lambda path: len(path.parts)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
