"""Resuming a run or a sweep: `resume=FOLDER` becomes the command line that made FOLDER, in FOLDER.

This happens before Hydra composes anything: the folder's own choices are composed again, its `.hydra/` stays true,
and ranks that Lightning starts by repeating the command line resume too.
"""

import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from upsweep.common.errors import UserError
from upsweep.runs.about import About
from upsweep.runs.layout import HYDRA, MANIFEST, OVERRIDES, RUNS, SWEEPS, newest
from upsweep.runs.manifest import Manifest
from upsweep.runs.result import HOW_IT_WENT_ON, key_and_value
from upsweep.sweeps.overrides import MULTIRUN, PATH, SHORT, WITH_VALUE, plain, quoted, searches, sweeps, values_of

KEY, PLACE = "resume=", "hydra.run.dir="
OF_THE_PLACE = {*HOW_IT_WENT_ON, "hydra.run.dir", "hydra.mode"}  # not taken over from the earlier command


def resumed(arguments: Sequence[str]) -> list[str]:
    """The arguments with `resume=` replaced by the command line of the named folder; others stay as they are.

    What is given beside it goes before what the folder says: `resume=X trainer.max_epochs=40`; `-m resume=X seed=4,5`
    adds these seeds to what a sweep goes through, and runs what is missing. This process moves to the directory in
    which X was started, if there is one: relative paths (`data.root=photos`) keep their meaning.

    Raises:
        UserError: there is no such folder, it is not a run's (or, with -m, a sweep's), or another one is given as well.
    """
    asked = next((a.removeprefix(KEY) for a in reversed(arguments) if a.startswith(KEY)), "null")
    folder = plain(asked)
    if folder in ("", "null"):
        return list(arguments)
    placed = [a.removeprefix(PLACE) for a in arguments if a.startswith(PLACE)]
    if asked in placed and "hydra.mode=RUN" in arguments:  # by ourselves: a sweep's job, or another rank
        return list(arguments)
    if placed and Path(folder).absolute() == Path(plain(placed[-1])).absolute():
        # One line that starts a run and resumes it: for a job that is queued a second time.
        if not (Path(folder) / OVERRIDES).is_file():
            return list(arguments)
        arguments = [a for a in arguments if not a.startswith(PLACE)]
    elif placed:
        raise UserError(
            f"{KEY}{asked} continues in that folder: leave {PLACE}{placed[-1]} out, or start a new run there "
            "from its weights with init_from=CHECKPOINT."
        )
    rest = [a for a in arguments if not a.startswith(KEY)]
    if sweeps(rest):
        return _sweep(_folder(folder, SWEEPS, MANIFEST), rest)
    return _run(_folder(folder, RUNS, str(OVERRIDES)), rest)


def _back_to(directory: str, given: Sequence[str]) -> list[str]:
    """Move to the directory of an earlier command; give the present arguments, with relative paths made absolute.

    The script and PYTHONPATH, which other processes are started with, are made absolute too.
    """
    here, there = Path.cwd(), Path(directory)
    if not directory or not there.is_dir() or there.samefile(here):
        return list(given)
    print(f"Resuming in {there}, where this was started: relative paths start there.", file=sys.stderr)
    sys.argv[0] = str(Path(sys.argv[0]).absolute())
    if path := os.environ.get("PYTHONPATH"):
        os.environ["PYTHONPATH"] = os.pathsep.join(str(here / part) for part in path.split(os.pathsep) if part)
    os.chdir(there)
    return [absolute(argument, here) for words in _split(given) for argument in words]


def absolute(argument: str, here: Path) -> str:
    """An argument that names a file or folder of `here`, not the choice of a group, with its whole path."""
    key, _, value = argument.partition("=")
    flag = SHORT.get(key, key) in ("--config-dir", "--config-path")
    path = here / plain(value)
    if not (flag or PATH.fullmatch(key.lstrip("+"))) or not value or not path.exists():
        return argument
    return f"{key}={path if flag else quoted(str(path))}"


def _folder(asked: str, home: str, holds: str) -> Path:
    if asked == "latest":
        if (found := newest(home, holds)) is None:
            raise UserError(f"resume=latest found nothing to resume in {Path(home).absolute()}.")
        return found.absolute()
    folder = Path(asked).absolute()
    if folder.is_file():
        raise UserError(f"resume={asked} is a file: give the folder of the run, the one that holds checkpoints/.")
    if not folder.is_dir():
        raise UserError(f"resume={asked}: there is no such folder.")
    if not (folder / holds).is_file():
        hint = "; add -m to resume a sweep" if (folder / MANIFEST).is_file() else ""
        what = "sweep" if holds == MANIFEST else "run"
        raise UserError(f"resume={asked} is not the folder of a {what}: it has no {holds}{hint}.")
    return folder


def _run(folder: Path, given: list[str]) -> list[str]:
    old_flags, old, directory = _started(folder)
    flags, overrides = _split(_back_to(directory, given))
    said = {*map(_flag, flags), *MULTIRUN}
    return [
        *(a for a in old_flags if _flag(a) not in said),
        *flags,
        *_said_anew([a for a in old if _key(a) not in OF_THE_PLACE], overrides),
        f"{KEY}{quoted(str(folder))}",
        f"{PLACE}{quoted(str(folder))}",
        "hydra.mode=RUN",  # a trial of a search would begin another search
    ]


def _said_anew(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Overrides that were given before, then new ones, which take the place of those with the same key."""
    said = {*map(_key, new)}
    added = {_key(a) for a in old if a.startswith("+")}  # no config knows these keys
    return [
        *(a for a in old if _key(a) not in said),
        *(f"++{a}" if _key(a) in added and a[0] not in "+~" else a for a in new),
    ]


def _started(folder: Path) -> tuple[list[str], list[str], str]:
    """Flags and overrides that the run in `folder` was last started with, and the directory.

    If no training has begun yet, Hydra's own record is used. It lacks `hydra.*` overrides, and may be that of a command
    that was then refused.
    """
    if (about := About.read(folder)) is not None:
        return (*_said(about), about.directory)
    try:
        overrides, said = _yaml(folder / OVERRIDES, list), _yaml(folder / HYDRA / "hydra.yaml", dict)["hydra"]
        sources = [s for s in said["runtime"]["config_sources"] if s["provider"] == "command-line"]
        flags = [f"--config-name={said['job']['config_name']}", *(f"--config-dir={s['path']}" for s in sources)]
        return flags, overrides, said["runtime"].get("cwd", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder / HYDRA} is empty or incomplete, so the settings of this run are not known: start a new one."
        ) from error


def _yaml(path: Path, kind: type) -> Any:
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(said, kind):
        raise TypeError(f"{path} is not a {kind.__name__}")
    return said


def _said(about: About) -> tuple[list[str], list[str]]:
    """Flags and overrides of a command, with paths that do not depend on its directory."""
    flags, overrides = _split(about.command[2:])
    for i, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if _flag(name) == "--config-dir":
            flags[i] = f"{name}={Path(about.directory) / value}"
    return flags, overrides


def _sweep(folder: Path, given: list[str]) -> list[str]:
    manifest = Manifest.read(folder) or Manifest(about=About())
    flags, overrides = _split(_back_to(manifest.about.directory, given))
    old_flags, old = _said(manifest.about)
    flags = flags if set(flags) - MULTIRUN else old_flags
    through = [*_params(folder), *(a for a in old if not a.startswith("hydra"))]
    before = {} if any(map(searches, (*old, *overrides))) else {_key(a): a for a in through}
    added = [_united(before[_key(a)], a) if _key(a) in before else a for a in overrides]
    kept = [a for a in _said_anew(old, added) if _key(a) not in ("hydra.sweep.dir", "hydra.launcher.resume")]
    return [*flags, *kept, f"hydra.sweep.dir={quoted(str(folder))}", "hydra.launcher.resume=true"]


def _params(folder: Path) -> list[str]:
    """What a grid goes through beside its command line: an experiment may say it in `hydra.sweeper.params`.

    Those of a search are what it draws from: a value that is typed beside them is fixed.
    """
    try:
        sweeper = _yaml(folder / "multirun.yaml", dict)["hydra"]["sweeper"]
        said = sweeper["params"] if sweeper["_target_"].endswith(".BasicSweeper") else None
        return [f"{key}={value}" for key, value in (said or {}).items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):  # of another sweeper, or cut
        return []


def _united(old: str, new: str) -> str:
    """A sweep over the values of two overrides of one key, if one of them is a sweep; else the new one."""
    before, now = values_of(old), values_of(new)
    globs = any(a.partition("=")[2].startswith("glob(") for a in (old, new))
    if before is None or now is None or (len(before) == len(now) == 1 and not globs):
        return new
    values = ",".join(dict.fromkeys([*before, *now]))
    return f"{new.partition('=')[0]}={f'glob([{values}])' if globs else values}"


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags, each in one piece with its value, and overrides: Hydra's parser wants the overrides together."""
    flags, overrides, words = list[str](), list[str](), iter(arguments)
    for word in words:
        if word in WITH_VALUE:
            word = "=".join([word, *islice(words, 1)])
        (flags if word.startswith("-") else overrides).append(word)
    return flags, overrides


def _flag(argument: str) -> str:
    """What a flag sets, by its long name."""
    name = argument.partition("=")[0]
    return SHORT.get(name, name)


def _key(argument: str) -> str:
    """What an override sets: `trainer.max_epochs`, also of `+trainer.max_epochs=3`."""
    return key_and_value(argument)[0]
