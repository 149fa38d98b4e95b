"""What a training does with the devices it gets: batch size, learning rate, layout, batch norm over ranks."""

import logging
from dataclasses import dataclass
from typing import Literal, get_args

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import nn
from torch.utils.data import DistributedSampler

from upsweep.common.errors import UserError

log = logging.getLogger("upsweep")

RuleName = Literal["none", "linear", "sqrt"]


@dataclass(frozen=True)
class Batch:
    """What one step of the optimizer sees: `size` patches on each device, `accumulated` times.

    `devices` are those of one of `nodes` machines.
    """

    size: int
    devices: int = 1
    nodes: int = 1
    accumulated: int = 1

    @property
    def effective(self) -> int:
        """Patches a step of the optimizer."""
        return self.size * self.devices * self.nodes * self.accumulated

    def __str__(self) -> str:
        factors = f"batch_size {self.size} x accumulated {self.accumulated} x devices {self.devices}"
        return f"{self.effective} patches a step ({factors} x nodes {self.nodes})"


@dataclass(frozen=True)
class RateRule:
    """How the learning rate follows the effective batch size, from the one that it was chosen for.

    Raises UserError: another name, or a batch size below 1.
    """

    name: RuleName = "none"  # linear: Goyal et al. 2017, for SGD; sqrt: Krizhevsky 2014, Malladi et al. 2022, for Adam
    batch_size: int = 16  # the effective one for which the optimizer's own rate is meant

    def __post_init__(self) -> None:
        if self.name not in get_args(RuleName):
            raise UserError(f"lr_rule={self.name} is unknown; choose one of {', '.join(get_args(RuleName))}.")
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise UserError(f"lr_batch_size={self.batch_size} must be a whole number above 0.")

    def factor(self, effective: int) -> float:
        """What the learning rate is multiplied with at this effective batch size."""
        power = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}[self.name]
        return float((effective / self.batch_size) ** power)


def wants_channels_last(asked: bool | str, device: str, precision: str) -> bool:
    """Whether to lay images and kernels out as NHWC; `auto`: where that is faster.

    On a CPU it is (`benchmarks/training_forms.py` measures it), and on CUDA in half precision, whose units want it (not
    measured by us). Raises UserError: neither true, false nor auto.
    """
    if isinstance(asked, bool):
        return asked
    if asked != "auto":
        raise UserError(f"channels_last={asked} must be true, false or auto.")
    return device == "cpu" or (device == "cuda" and precision.startswith(("16", "bf16")))


def synchronise(network: nn.Module, ranks: int, device: str) -> None:
    """Take a network's batch statistics over all ranks, where there are several and torch can do that (CUDA).

    Names and shapes of the weights stay, so that a checkpoint fits one device and many. Elsewhere the layers are
    left as they are, and the log says that each rank has statistics of its own.
    """
    if ranks < 2 or not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        return
    if device == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # in place, below the top
    else:
        said = "Batch norm: each of %d ranks takes statistics of its own batch (%s has no SyncBatchNorm)."
        rank_zero_only(log.info)(said, ranks, device)


def hold_to_shares(trainer: pl.Trainer) -> None:
    """Raise UserError for images to validate on that Lightning's sampler would repeat, to make all shares equal."""
    for loader in CombinedLoader(trainer.val_dataloaders).flattened:
        sampler, world = getattr(loader, "sampler", None), trainer.world_size
        if isinstance(sampler, DistributedSampler) and not sampler.drop_last and len(sampler.dataset) % world:  # type: ignore[arg-type]
            raise UserError(
                f"{len(sampler.dataset)} images to validate on make no {world} equal shares, and Lightning would judge "  # type: ignore[arg-type]
                f"some of them twice: validate on a multiple of {world}, or give val_dataloader a sampler of its own."
            )
