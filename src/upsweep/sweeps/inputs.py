"""What jobs need must be there before the first of them starts: images, weights to start from, a logger's package."""

import json
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from upsweep.common.commands import installing
from upsweep.common.errors import UserError
from upsweep.release import choices
from upsweep.runs.folders import to_go_on_from
from upsweep.tracking.nodes import nodes_of
from upsweep.tracking.weights import START, located, teachers_of

# class of a logger -> the extra that has its package, and the packages of which one must be there
PACKAGES = {
    "TensorBoardLogger": ("TensorBoard", ("tensorboard", "tensorboardX")),
    "MLFlowLogger": ("MLflow", ("mlflow",)),
    "MLflowRun": ("MLflow", ("mlflow",)),
}


def check_inputs(configs: Iterable[DictConfig]) -> None:
    """Look for what trainings with these configs read, once for all that read the same. It imports no torch.

    Raises:
        UserError: a folder of images, a data set, a checkpoint or the package of a logger is not there.
    """
    configs = list(configs)
    for target in dict.fromkeys(target for config in configs for target in _loggers(config)):
        _hold_to_package(target)
    wanted = [_inputs(config) for config in configs]
    for weights, source in {json.dumps(each, sort_keys=True, default=str): each for each in wanted}.values():
        for key, said in weights.items():
            if isinstance(said, str) and not located(said, key).exists():
                raise UserError(f"{key}={said}: there is no such checkpoint; give {choices()}.")
        _look_for(source)


def still_read(config: DictConfig, folder: Path) -> DictConfig:
    """A config without the weights that a training begins with, where the folder has a checkpoint to go on from."""
    if not to_go_on_from(folder):
        return config
    return OmegaConf.masked_copy(config, [str(key) for key in config if key not in START])


def _loggers(config: DictConfig) -> list[str]:
    """The classes of the loggers of a config."""
    node = OmegaConf.to_container(config, resolve=False)
    said = node.get("logger") if isinstance(node, dict) else None
    return [str(each["_target_"]) for each in nodes_of(said if isinstance(said, dict) else {}).values()]


def _hold_to_package(target: str) -> None:
    name, packages = PACKAGES.get(target.rpartition(".")[2], ("", ()))
    if name and not any(find_spec(package) for package in packages):
        extra = name.lower()
        raise UserError(f"logger={extra} needs {name}: {installing(extra)}.")


def _inputs(config: DictConfig) -> tuple[dict[str, Any], Any]:
    weights = {key: OmegaConf.select(config, key) for key in START}
    with suppress(Exception):  # a config that makes no sense is the job's to tell
        if config.get("scale", 1) is not None:  # or there is nothing to teach, which the job tells
            weights |= teachers_of(config.get("objective"))
        return weights, OmegaConf.to_container(config.data.source, resolve=True)
    return weights, None


def _look_for(source: Any) -> None:
    """Have a source look for its images (`upsweep.data.sources.Source.check`); one's own source may not know how."""
    try:
        instantiate(source).check()
    except UserError:
        raise
    except Exception:  # likewise
        return
