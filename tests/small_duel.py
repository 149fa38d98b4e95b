"""A duel of a generator and a discriminator that takes a second, for tests of adversarial training."""

from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.small_job import RECIPE, TRAINER
from torch import Tensor, nn
from torchmetrics import MeanMetric

from upsweep.data.sources import Digits
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.vae import VAE
from upsweep.objectives.adversarial.losses import NonSaturating
from upsweep.tasks.generation.data import ImageData, Images
from upsweep.tasks.generation.task import few_of
from upsweep.tasks.task import Compared, Few, Task
from upsweep.training import schedules
from upsweep.training.adversarial import Adversarial, Adversary
from upsweep.training.job import Job
from upsweep.training.saving import SaveBest, SaveLast
from upsweep.training.start import start_of
from upsweep.training.supervised import Supervised

NORMED = {**RECIPE, "norm": {"_target_": "upsweep.blocks.norm.BatchNorm"}}
SIZES = {"size": 28, "channels": 1, "width": 2}
GENERATOR: dict[str, Any] = {
    "_target_": "upsweep.networks.synthesisers.dcgan.DCGAN",
    "recipe": NORMED,
    "latent": 4,
    **SIZES,
}
DISCRIMINATOR: dict[str, Any] = {
    "_target_": "upsweep.networks.discriminators.dcgan.DCGAN",
    "recipe": {**NORMED, "activation": {"_target_": "torch.nn.LeakyReLU", "_partial_": True, "negative_slope": 0.2}},
    **SIZES,
}


class Grey(Task):
    """Images of latents, judged by how far their mean is from a quarter: a figure that costs nothing."""

    data: ImageData

    def __init__(self, data: ImageData) -> None:
        figure = {"name": "grey", "title": "grey", "better": "lower", "digits": 3, "noise": 0.01}
        super().__init__([figure], data, {"grey": MeanMetric})

    def make(self, generator: Network, batch: Images) -> list[Compared]:
        if isinstance(generator, VAE):
            made, divergence = generator.reconstruct(batch.real)
            return [Compared(made, batch.real, cost=divergence)]
        return [Compared(generator(batch.latent), batch.real, paired=False)]

    def judge(self, generator: Network, batch: Images) -> Tensor:
        made: Tensor = generator(batch.latent)
        if len(made):
            self.feed((made.float().mean() - 0.25).abs())
        return made

    def few(self, count: int) -> Few:
        return few_of(self.data, count)


def adversary(**changes: Any) -> Adversary:
    given: dict[str, Any] = {
        "discriminator": DISCRIMINATOR,
        "loss": NonSaturating(),
        "optimizer": partial(torch.optim.Adam, lr=5e-4, betas=(0.5, 0.999)),
        "schedule": schedules.Cosine(),
    }
    return Adversary(**{**given, **changes})


def small_duel(folder: Path, cache: Path, *, against: Adversary | None = None, **changes: Any) -> Job:
    """Two epochs of six batches of digits, against `adversary()`.

    `changes` are a Job's fields, or what its data (`batch_size`, `latent`, ...), its training (`objective`, `factors`,
    `rule`, `compiled`, `clip`, `accumulate`), or its start (`resume`) is made of. A VAE has no adversary, unless one
    is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_a_job = {field.name for field in fields(Job)}
    given = {key: changes.pop(key) for key in list(changes) if key not in of_a_job}
    generator, trainer = changes.get("generator", GENERATOR), changes.get("trainer", TRAINER)
    learning: dict[str, Any] = {
        "objective": nn.L1Loss(),
        "optimizer": partial(torch.optim.Adam, lr=5e-4, betas=(0.5, 0.999)),
        "schedule": schedules.Cosine(),
    }
    own = (*learning, "factors", "rule", "compiled", "clip", "accumulate")
    learning |= {key: given.pop(key) for key in list(given) if key in own}
    begins = {key: given.pop(key) for key in list(given) if key in ("resume", "checkpoint", "init_from")}
    alone = generator["_target_"].endswith("VAE") and against is None
    training = Supervised if alone else partial(Adversarial, adversary=against or adversary())
    small = {"batch_size": 8, "patches_per_epoch": 48, "samples": 16, "cache_dir": str(cache), "flip": False}
    seed = changes.get("seed", 1)
    sized: dict[str, Any] = {"size": 28, "channels": 1, "latent": generator.get("latent", 64), "seed": seed}
    task = given.pop("task", None) or Grey(ImageData(source=Digits(), **{**sized, **small, **given}))
    job = Job(
        folder=folder,
        task=task,
        generator=generator,
        training=partial(training, **learning),
        trainer=TRAINER,
        callbacks=[SaveBest(folder), SaveLast(folder)],
        logger=None,
        start=start_of(folder, changes.get("config", {}), trainer["max_epochs"], **begins),
        seed=seed,
    )
    return replace(job, **changes)
