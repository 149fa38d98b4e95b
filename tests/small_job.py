"""A training that takes a second, for tests of what trains."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from upsweep.data.sources import Photos
from upsweep.metrics.protocol import Protocol
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.task import SuperResolution
from upsweep.training import schedules
from upsweep.training.job import Job
from upsweep.training.saving import SaveBest, SaveLast
from upsweep.training.start import start_of
from upsweep.training.supervised import Supervised

FIGURES: list[dict[str, Any]] = [
    {"name": "psnr", "title": "PSNR", "unit": "dB", "noise": 0.05, "baseline": "bicubic"},
    {"name": "ssim", "title": "SSIM", "digits": 4, "noise": 0.001, "baseline": "bicubic"},
]
RECIPE: dict[str, Any] = {
    "_target_": "upsweep.blocks.Recipe",
    "init": {"_target_": "upsweep.blocks.init.He"},
    "activation": {"_target_": "torch.nn.ReLU", "_partial_": True},
    "norm": {"_target_": "upsweep.blocks.norm.Norm"},
    "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.1},
    "upsampler": {"_target_": "upsweep.blocks.upsampler.Deconv"},
}
NET: dict[str, Any] = {
    "_target_": "upsweep.networks.upscalers.deconvnet.DeconvNet",
    "recipe": RECIPE,
    "width": 4,
    "depth": 1,
}
TRAINER: dict[str, Any] = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "limit_val_batches": 2}


def small_job(folder: Path, cache: Path, **changes: Any) -> Job:
    """Two epochs of three batches of the real photos.

    `changes` are a Job's fields, or what its data (`patch_size`, ...), its training (`objective`, `optimizer`,
    `schedule`, `factors`, `rule`, `compiled`), its task (`protocol`) or its start (`resume`, `checkpoint`,
    `init_from`) is made of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_a_job = {field.name for field in fields(Job)}
    given = {key: changes.pop(key) for key in list(changes) if key not in of_a_job}
    seed, trainer = changes.get("seed", 1), changes.get("trainer", TRAINER)
    learning: dict[str, Any] = {
        "objective": nn.L1Loss(),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "schedule": schedules.Cosine(),
    }
    learning |= {key: given.pop(key) for key in list(given) if key in (*learning, "factors", "rule", "compiled")}
    begins = {key: given.pop(key) for key in list(given) if key in ("resume", "checkpoint", "init_from")}
    protocol, data = given.pop("protocol", Protocol()), given.pop("data", None)
    if data is None:
        small: dict[str, Any] = {"patch_size": 8, "batch_size": 4, "patches_per_epoch": 12, "cache_dir": str(cache)}
        data = PatchData(source=Photos(), **{"scale": 2, "channels": 1, "seed": seed, **small, **given})
    job = Job(
        folder=folder,
        task=SuperResolution(FIGURES, data, protocol),
        generator=NET,
        training=partial(Supervised, **learning),
        trainer=TRAINER,
        callbacks=[SaveBest(folder), SaveLast(folder)],
        logger=None,
        start=start_of(folder, changes.get("config", {}), trainer["max_epochs"], **begins),
        seed=seed,
        scale=2,
    )
    return replace(job, **changes)
