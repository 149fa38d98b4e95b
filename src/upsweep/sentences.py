"""The sentences for what goes wrong at a door: what the person at the keyboard can do, or None where others say it."""

import re
import sys
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import (
    CompactHydraException,
    ConfigCompositionException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError
from upsweep.sweeps.overrides import APART, plain, values_of

# how Hydra refuses the values of a sweep where there is one job alone
SEVERAL = re.compile(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'")


def of_the_task(error: Exception) -> object:
    """The user's part in an error of the task; a `debug` choice asks for the traceback where it is not our sentence."""
    links = list(_chain(error))
    ours = next((link for link in links if isinstance(link, UserError)), None)
    if ours or HydraConfig.get().runtime.choices.get("debug") is not None:
        return ours
    return next(filter(None, map(_refused, links)), None)


def of_the_door(error: Exception) -> object:
    """What is told of an error that does not pass through the report, as in --help and --info."""
    if isinstance(error, (CompactHydraException, UserError)):
        return of_the_config(error) or error
    return of_the_config(error) if isinstance(error, ValueError) else None


def of_the_config(error: Exception) -> str | None:
    """What to tell a user of an error outside the task; None where Hydra's own words are best."""
    for link in _chain(error):
        if isinstance(link, UserError):
            return str(link)
        if isinstance(link, OverrideParseException) and not re.match(r"~|[^=]+=", link.override):
            return f"{link.override} is not understood: write KEY=VALUE, as in seed=1."
        if isinstance(link, ConfigCompositionException) and (swept := SEVERAL.match(str(link))):
            key = swept[1].partition("=")[0]
            return f"{swept[1]} has several values: add -m to run a job for each, or write '{key}=[...]' for a list."
        if isinstance(link, (ConfigKeyError, ConfigAttributeError)) and isinstance(link.parent_node, DictConfig):
            key = str(link.key)
            if str(link.full_key) == f"trainer.{key}" and (said := of_the_trainer(key)):
                return said
            if where := _in_one_of_several(link.parent_node, str(link.full_key), key):
                return f"There is no {link.full_key}: with several, write {' or '.join(where)}."
            return _unknown(str(link.full_key).removesuffix(key), key, sorted(map(str, link.parent_node)))
        if isinstance(link, (InterpolationResolutionError, MissingMandatoryValue, UnsupportedInterpolationType)):
            return _refused(link)
        if isinstance(link, MissingConfigException):
            return _no_such_choice(link)
        if isinstance(link, ValueError) and "Config group override must be" in str(link):
            return _no_choice()
        if isinstance(link, ValueError) and str(link).startswith("Only one of --run"):
            return "--cfg and --info show the config of one job: leave -m out."
        if isinstance(link, OSError):
            what = full_disk(link, Path.cwd()) or f"Cannot use {link.filename}: {link.strerror}"
            return f"{what}. Choose another output folder with hydra.run.dir=... or, for a sweep, hydra.sweep.dir=..."
    return None


def _refused(error: BaseException) -> str | None:
    """What is told of a config that cannot be read, or of which nothing can be made, and of a file; None of others."""
    if (full := full_disk(error, Path.cwd())) is not None:
        return f"{full}: free some space, and start again."
    key = getattr(error, "full_key", None) or "".join(re.findall(r"full_key: (\S+)", str(error))[:1])
    reason = " ".join(re.split(r"\n *full_key", str(error.__cause__ or error))[0].split())
    match error:
        case InterpolationKeyError():
            return _missing(key, reason)
        case ConfigKeyError() | ConfigAttributeError():
            return f"{key} is needed, but not in the config: choose it, or leave out what removes it (~{key})."
        case InstantiationException() | OmegaConfBaseException():
            return f"{key}: {reason}." if key else f"{reason}."
        case OSError(filename=str() as file, strerror=str() as why):
            return f"Cannot use {file}: {why}."
    return None


def _missing(key: str, reason: str) -> str:
    """What to tell of a key whose value is that of another, which is not there: often another choice has it."""
    other = "".join(re.findall(r"'(\S+)' not found", reason)[:1])
    group = other.partition(".")[0]
    if chosen := HydraConfig.initialized() and HydraConfig.get().runtime.choices.get(group):
        return (
            f"{key} needs {other}, which {group}={chosen} does not have: choose another {group}, or correct the name."
        )
    return f"{key} needs what the config does not have: {reason}. Choose it, or leave out what removes it."


def _in_one_of_several(parent: DictConfig, full_key: str, key: str) -> list[str]:
    """The keys that an unknown one may mean, where several choices of a group stand `APART`: `logger.wandb.mode`."""
    group = full_key.removesuffix(f".{key}")
    nodes = {name: parent.get(name) for name in map(str, parent)} if group in APART else {}
    return [f"{group}.{name}.{key}" for name, node in nodes.items() if isinstance(node, DictConfig) and key in node]


def of_the_trainer(key: str) -> str | None:
    """What to tell of `trainer.<key>`, which the config does not have."""
    from upsweep.training.trainer import refusal

    value = next((a.partition("=")[2] for a in sys.argv[1:] if a.startswith(f"trainer.{key}=")), "...")
    return refusal(key, value)


def _no_such_choice(error: MissingConfigException) -> str | None:
    """What to tell of a choice that is in no folder of configs; None where the group is unknown, too."""
    folder, _, name = (error.missing_cfg_file or "").rpartition("/")
    typed = {argument.lstrip("+").partition("=")[0].partition("@")[0] for argument in sys.argv[1:]}
    group = next((each for each in (folder, *map(str, PurePosixPath(folder).parents)) if each in typed), folder)
    inside = f"{folder.removeprefix(group)}/".lstrip("/")  # experiment=release/sesr_x2
    hydra = GlobalHydra.instance()  # not there in --help
    # The error's own are none for one of several names ('degradation=[blur,...]'), and in a folder those of its parent.
    options = hydra.config_loader().get_group_options(folder) if hydra.is_initialized() else []
    known = [f"{inside}{option}" for option in options] or list(error.options or [])
    return _unknown(f"{group}=", f"{inside}{name}", sorted(known)) if known else None


def _no_choice() -> str | None:
    """What to tell of a group for which null, or a number, was chosen."""
    loader = GlobalHydra.instance().config_loader()
    for argument in sys.argv[1:]:
        group = argument.partition("=")[0].lstrip("+").partition("@")[0]
        known = sorted(loader.get_group_options(group))
        if not known or "glob(" in argument:  # patterns name what there is
            continue
        for value in values_of(argument) or ():
            if not value.startswith("[") and plain(value) not in known:  # of a list, Hydra misses a single name
                return _unknown(f"{group}=", value, known)
    return None


def _unknown(prefix: str, word: str, known: list[str]) -> str:
    meant = "".join(f" Did you mean {prefix}{match}?" for match in get_close_matches(word, known, n=1))
    choices = f"; choose from {', '.join(known)}" if known else ""
    return f"There is no {prefix}{word}{choices}.{meant}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: `hydra.utils.instantiate` wraps what a constructor raises."""
    while error is not None:
        yield error
        error = error.__cause__
