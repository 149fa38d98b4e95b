"""Weights that lie at W&B: `checkpoint=wandb:ENTITY/PROJECT/NAME:ALIAS`. Knows no torch."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from upsweep import release
from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError, first_line
from upsweep.common.files import whole, write_whole
from upsweep.common.locks import locked
from upsweep.common.names import listed
from upsweep.tracking.server import asking, no_way_online

log = logging.getLogger("upsweep")

START = ("checkpoint", "init_from")  # keys of a training that name a checkpoint to start from
DISTILLED = "upsweep.objectives.distilled.Distilled"  # whose key teacher names one, too
PREFIX = "wandb:"
CACHE = Path(".cache/upsweep/wandb")  # below the folder of the command, as that of prepared images
SUFFIXES = (".ckpt", ".safetensors")
NAME = re.compile(r"([^/:]+/){1,2}[A-Za-z0-9_.-]+:[^/:]+")
VERSION = re.compile(r"v\d+")


_fetched: dict[str, "Fetched"] = {}  # by this process


class Fetched(NamedTuple):
    """A checkpoint that was at W&B: where it lies now, and the version that it is (`entity/project/name:v3`)."""

    file: Path
    version: str


def weights_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a training names a checkpoint: key -> value, those to start from and the teachers of its objective."""
    return {key: config.get(key) for key in START} | teachers_of(config.get("objective"))


def teachers_of(node: Any, key: str = "objective") -> dict[str, Any]:
    """The teachers that an objective learns from, it or one of its terms: key -> value."""
    if not isinstance(node, Mapping):
        return {}
    found = {f"{key}.teacher": node.get("teacher")} if node.get("_target_") == DISTILLED else {}
    for name in node:
        found |= teachers_of(node[name], f"{key}.{name}")
    return found


def names_weights(key: str) -> bool:
    """Whether a key may name a checkpoint that a training starts from or learns from."""
    return key in START or re.fullmatch(r"objective\.(.+\.)?teacher", key) is not None


def located(checkpoint: str | os.PathLike[str], key: str = "checkpoint") -> Path:
    """The file that `checkpoint=` names: as `release.located`, and what is at W&B, which is fetched once.

    Raises:
        UserError: it is no path, a folder without a checkpoint, or nothing that W&B has or that it can be asked for.
    """
    if not str(checkpoint).startswith(PREFIX):
        return release.located(checkpoint, key)
    said = str(checkpoint)
    if said not in _fetched:
        _fetched[said] = _fetch(said, key)
    return _fetched[said].file


def version_of(said: str) -> str:
    """The version that `wandb:...` was when this process fetched it (`entity/project/name:v3`)."""
    return _fetched[said].version if said in _fetched else said.removeprefix(PREFIX)


def _fetch(said: str, key: str) -> Fetched:
    """What `wandb:[ENTITY/]PROJECT/NAME[:ALIAS]` names; without an alias the latest.

    It lies in `.cache/upsweep/wandb` after the first time. Then a version (`:v3`) needs no server any more, and of an
    alias the version is taken that it was the last time, where the server cannot be reached.

    Raises:
        UserError: that is no such name, the server cannot be asked, or it has no such checkpoint.
    """
    path, _, alias = said.removeprefix(PREFIX).partition(":")
    alias = alias or "latest"
    if not NAME.fullmatch(f"{path}:{alias}") or ".." in path.split("/"):
        raise UserError(f"{key}={said} is no name at W&B: write {key}=wandb:ENTITY/PROJECT/NAME:ALIAS.")
    home = (CACHE / path).resolve()
    with locked(home / ".lock"):
        if (known := _known(home, path, alias)) is not None and VERSION.fullmatch(alias):
            return known
        with asking():
            if (problem := no_way_online()) is None:
                return _ask(home, path, alias, f"{key}={said}")
    if known is None:
        raise UserError(f"{key}={said} cannot be fetched: {problem}.")
    log.warning("%s=%s is taken from %s, as it was fetched before: %s.", key, said, known.file, problem)
    return known


def _known(home: Path, path: str, alias: str) -> Fetched | None:
    """What was fetched before under an alias or version."""
    said = home / f"{alias}.txt"
    version = said.read_text(encoding="ascii") if said.is_file() else alias
    file = next((file for file in sorted((home / version).glob("*")) if file.suffix in SUFFIXES), None)
    return None if file is None else Fetched(file, f"{path}:{version}")


def _ask(home: Path, path: str, alias: str, asked: str) -> Fetched:
    """Download a checkpoint, unless it is there, and note of which version it is."""
    import wandb

    try:
        artifact = wandb.Api().artifact(f"{path}:{alias}")
        if (found := _known(home, path, artifact.version)) is None:
            entry = _checkpoint_in(artifact, asked)
            with whole(home / artifact.version) as folder:
                file = Path(entry.download(str(folder), skip_cache=True))
                file.replace(folder / f"{home.name}{file.suffix}")
            found = _known(home, path, artifact.version)
    except (wandb.Error, ValueError, OSError) as error:
        if full_disk(error, home):
            raise
        raise UserError(
            f"{asked}: W&B gives no such artifact ({first_line(error)}): check entity, project, name and alias."
        ) from error
    assert found is not None
    write_whole(home / f"{alias}.txt", artifact.version)
    return found


def _checkpoint_in(artifact: Any, asked: str) -> Any:
    """The one checkpoint of an artifact, or its `best.ckpt`. Raises UserError: there is none, or several."""
    files = map(PurePosixPath, artifact.manifest.entries)
    names = [name for name in files if name.suffix in SUFFIXES and ".." not in name.parts and not name.is_absolute()]
    chosen = names if len(names) == 1 else [name for name in names if name.name == "best.ckpt"]
    if len(chosen) != 1:
        has = f"several checkpoints ({listed([*map(str, names)])})" if names else "no checkpoint (.ckpt, .safetensors)"
        raise UserError(f"{asked}: this artifact has {has}: name one that holds the checkpoint of one run.")
    return artifact.get_entry(str(chosen[0]))
