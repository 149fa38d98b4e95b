"""Untrained synthesisers as runs leave them, for tests of the doors."""

from pathlib import Path
from typing import Any

import torch
from tests.small_job import RECIPE

from upsweep.networks import checkpoints
from upsweep.runs.result import Result

SYNTHESISER: dict[str, Any] = {
    "_target_": "upsweep.networks.synthesisers.dcgan.DCGAN",
    "recipe": {**RECIPE, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}},
    "size": 28,
    "channels": 1,
    "width": 4,
    "latent": 8,
}


def trained(
    folder: Path,
    *,
    seed: int = 0,
    result: Result | None = None,
    spec: dict[str, Any] = SYNTHESISER,
    **changes: Any,
) -> Path:
    """The folder of a run with a checkpoint of the network that `spec`, with some changes, describes."""
    torch.manual_seed(seed)
    spec = {**spec, **changes}
    generator = checkpoints.build(spec)
    state = {
        "state_dict": {f"generator.{name}": value for name, value in generator.state_dict().items()},
        checkpoints.KEY: checkpoints.describe(spec),
    }
    (folder / "checkpoints").mkdir(parents=True)
    checkpoints.save(state, folder / "checkpoints" / "best.ckpt")
    if result is not None:
        result.write(folder)
    return folder
