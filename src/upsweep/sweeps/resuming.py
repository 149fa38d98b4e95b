"""Going on with a run or a sweep: `resume=FOLDER` becomes the command line that made FOLDER, in FOLDER.

It works on the command line, before Hydra composes anything, so that the folder's own choices are composed
again, `.hydra/` in it stays true, and ranks that Lightning starts by repeating the command line go on too.
Knows no torch.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra.core.override_parser.types import Quote, QuotedString

from upsweep.errors import UserError

MANIFEST = "sweep.json"
KEY = "resume="
WITH_VALUE = {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--package", "-p"}
RUNS, SWEEPS = "outputs", "multirun"  # where `latest` looks, below the folder of the command


def quoted(value: str) -> str:
    """A value that Hydra's grammar reads back as this very string."""
    return QuotedString(value.replace("${", "\\${"), Quote.single).with_quotes()


def resumed(arguments: Sequence[str]) -> list[str]:
    """The arguments with `resume=` replaced by what the named folder was started with; others stay as they are.

    What is given beside it goes before what the folder says (`resume=X trainer.max_epochs=40`). A sweep
    (`-m resume=X`) without further overrides is the one that X was started as.

    Raises:
        UserError: there is no such folder, or it is no run's (or, with -m, no sweep's).
    """
    asked = [a.removeprefix(KEY).strip("'\"") for a in arguments if a.startswith(KEY)]
    placed = any(a.startswith("hydra.run.dir=") for a in arguments)  # by the launcher, or a rank of ours
    if not asked or asked[-1] in ("", "null") or placed:
        return list(arguments)
    rest = [a for a in arguments if not a.startswith(KEY)]
    if {"-m", "--multirun"} & set(rest):
        return _sweep(_folder(asked[-1], SWEEPS, MANIFEST), rest)
    return _run(_folder(asked[-1], RUNS, ".hydra/overrides.yaml"), rest)


def _folder(asked: str, home: str, holds: str) -> Path:
    if asked == "latest":
        found = [path for path in Path(home).glob("*") if (path / holds).is_file()]
        if not found:
            raise UserError(f"resume=latest found nothing to go on with in {Path(home).absolute()}.")
        return max(found, key=lambda path: (path / holds).stat().st_mtime).absolute()
    folder = Path(asked).absolute()
    if folder.is_file():
        raise UserError(f"resume={asked} is a file: give the folder of the run, the one that holds checkpoints/.")
    if not folder.is_dir():
        raise UserError(f"resume={asked}: there is no such folder.")
    if not (folder / holds).is_file():
        hint = ": add -m to go on with a sweep" if (folder / MANIFEST).is_file() else ""
        what = "sweep" if holds == MANIFEST else "run"
        raise UserError(f"resume={asked} is not the folder of a {what}, it has no {holds}{hint}.")
    return folder


def _run(folder: Path, given: list[str]) -> list[str]:
    before = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    said = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))["hydra"]
    flags = {"--config-name": said["job"]["config_name"]}
    for source in said["runtime"]["config_sources"]:
        if source["provider"] == "command-line":
            flags["--config-dir"] = source["path"]
    given_flags, overrides = _split(given)
    new = {_key(a) for a in given}
    return [
        *given_flags,
        *(f"{flag}={value}" for flag, value in flags.items() if flag not in new),
        *(a for a in before if _key(a) not in new and not a.startswith(KEY)),
        *overrides,
        f"{KEY}{quoted(str(folder))}",
        f"hydra.run.dir={quoted(str(folder))}",
        "hydra.mode=RUN",  # a trial of a search would begin another search
    ]


def _sweep(folder: Path, given: list[str]) -> list[str]:
    flags, overrides = _split(given)
    if all(a.startswith(("hydra.", "hydra/")) for a in overrides):
        old_flags, old = _split(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["command"][2:])
        new = {_key(a) for a in overrides}
        overrides = [*(a for a in old if _key(a) not in new), *overrides]
        flags = flags if len(flags) > 1 else old_flags  # more than -m
    kept = [a for a in overrides if _key(a) not in ("hydra.sweep.dir", "hydra.launcher.resume")]
    return [*flags, *kept, f"hydra.sweep.dir={quoted(str(folder))}", "hydra.launcher.resume=true"]


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags, with their values, and overrides: Hydra's parser wants the overrides in one piece."""
    flags: list[str] = []
    overrides: list[str] = []
    waiting = False  # for the value of a flag
    for argument in arguments:
        (flags if waiting or argument.startswith("-") else overrides).append(argument)
        waiting = not waiting and argument in WITH_VALUE
    return flags, overrides


def _key(argument: str) -> str:
    """What an argument sets: `trainer.max_epochs`, `--config-dir`; the argument itself where it sets nothing."""
    return argument.partition("=")[0].lstrip("+~")
