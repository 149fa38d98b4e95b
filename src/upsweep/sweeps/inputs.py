"""What jobs read must be there before the first of them starts: a folder of images, weights to start from."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from upsweep.common.errors import UserError
from upsweep.release import choices, located


def check_inputs(configs: Iterable[DictConfig]) -> None:
    """Look for what trainings with these configs read, once for all that read the same. It imports no torch.

    Raises:
        UserError: a folder of images, a data set or a checkpoint is not there.
    """
    wanted = [_inputs(config) for config in configs]
    for weights, source in {json.dumps(each, sort_keys=True, default=str): each for each in wanted}.values():
        for key, said in weights.items():
            if isinstance(said, str) and not located(said, key).exists():
                raise UserError(f"{key}={said}: there is no such checkpoint; give {choices()}.")
        _look_for(source)


def _inputs(config: DictConfig) -> tuple[dict[str, Any], Any]:
    weights = {key: OmegaConf.select(config, key) for key in ("checkpoint", "init_from")}
    with suppress(Exception):  # a config that makes no sense is the job's to tell
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
