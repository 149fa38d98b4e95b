"""What the diagnoses cost: the seconds of the same training with and without them, alternating, as a ratio.

Run it on a quiet machine: `python benchmarks/diagnoses.py`; it writes diagnoses.json beside itself. Like a default run
it has 1,000 steps, and so as many samples a step; in 2 epochs of 500, not in 8 of 125. The diagnoses' own hooks are
timed too, since a ratio of two trainings is no more exact than the machine is quiet.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from upsweep.data.sources import Photos
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.task import SuperResolution
from upsweep.training import schedules
from upsweep.training.diagnoses import Diagnoses
from upsweep.training.job import Job
from upsweep.training.job import train as run
from upsweep.training.supervised import Supervised

HERE = Path(__file__).resolve().parent
ROUNDS = 5
EPOCHS, STEPS = 2, 500
BOUND = 1.03
GENERATOR: dict[str, Any] = {  # the default of conf/
    "_target_": "upsweep.networks.upscalers.deconvnet.DeconvNet",
    "recipe": {
        "_target_": "upsweep.blocks.Recipe",
        "init": {"_target_": "upsweep.blocks.init.He"},
        "activation": {"_target_": "upsweep.blocks.activation.PReLU", "_partial_": True},
        "norm": {"_target_": "upsweep.blocks.norm.Norm"},
        "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0},
        "upsampler": {"_target_": "upsweep.blocks.upsampler.Deconv"},
    },
}


class Timed(Diagnoses):
    """Diagnoses that know how long their hooks took; what they slow down in the step itself is in the ratio alone."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds = 0.0
        for name in ("train_batch_start", "before_optimizer_step", "train_batch_end", "validation_batch_end"):
            self._time(f"on_{name}")
        for name in ("validation_epoch_end", "validation_end", "train_end"):
            self._time(f"on_{name}")

    def _time(self, name: str) -> None:
        hook: Callable[..., None] = getattr(self, name)

        def timed(*arguments: Any, **named: Any) -> None:
            started = time.perf_counter()
            hook(*arguments, **named)
            self.seconds += time.perf_counter() - started

        setattr(self, name, timed)


def train(folder: Path, cache: Path, diagnoses: Diagnoses | None) -> float:
    sizes: dict[str, Any] = {"patches_per_epoch": 16 * STEPS, "cache_dir": str(cache)}
    psnr = {"name": "psnr", "title": "PSNR", "unit": "dB", "noise": 0.05, "baseline": "bicubic"}
    job = Job(
        folder=folder,
        task=SuperResolution([psnr], PatchData(source=Photos(), scale=2, channels=1, seed=1, **sizes)),
        generator=GENERATOR,
        training=partial(
            Supervised,
            objective=nn.L1Loss(),
            optimizer=partial(torch.optim.Adam, lr=2e-3),
            schedule=schedules.Cosine(),
        ),
        trainer={"accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS},
        callbacks=[] if diagnoses is None else [diagnoses],
        logger=None,
        seed=1,
    )
    started = time.perf_counter()
    run(job)
    return time.perf_counter() - started


def main() -> None:
    ratios, shares, seconds = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder, folder / "cache", None)  # prepares the images, and warms up
        for _ in range(ROUNDS):
            timed = Timed(folder)
            without, with_them = train(folder, folder / "cache", None), train(folder, folder / "cache", timed)
            ratios.append(with_them / without)
            shares.append(timed.seconds / without)
            seconds.append(without)
    result = {
        "ratio": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
        "share_of_their_own_hooks": median(shares),
        "seconds_without": median(seconds),
        "within": median(ratios) <= BOUND,
        "rounds": ROUNDS,
        "steps": EPOCHS * STEPS,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    (HERE / "diagnoses.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
