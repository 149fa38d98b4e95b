"""Sweeps that look on disk as real ones do, for what reads them."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from upsweep.imaging.files import Picture, write_image
from upsweep.sweeps.about import About
from upsweep.sweeps.results import Result, State

CHOICES = {"generator": "deconvnet", "init": "he", "norm": "none", "activation": "prelu", "data": "photos"}


def write_sweep(
    folder: Path,
    grid: Mapping[str, Sequence[str]],
    psnr: Callable[[Mapping[str, str], np.random.Generator], float | None],
    epochs: int = 12,
    crops: bool = True,
) -> Path:
    """A sweep over `grid`; `psnr` gives a run's final figure, or None where it diverges."""
    rng = np.random.default_rng(0)
    about = About.now({"scale": 2, "optimizer": {"lr": 2e-3}})
    hr = rng.integers(0, 256, (96, 96, 3), np.uint8)
    jobs = []
    for number, values in enumerate(product(*grid.values())):
        settings = dict(zip(grid, values, strict=True))
        overrides = [f"{key}={value}" for key, value in settings.items()]
        job = folder / str(number)
        job.mkdir(parents=True)
        jobs.append({"name": job.name, "number": number, "overrides": overrides})
        final = psnr(settings, rng)
        write_result(job, settings, overrides, final, parameters=11_000 + 160 * (settings.get("norm") == "bn"), rng=rng)
        config = {"init": {"_target_": settings.get("init", "he")}, "folder": f"{job.resolve()}/checkpoints"}
        About(**{**about.plain(), "config": {**about.config, **config}}).write(job)
        lines = ["epoch,step,seconds,loss,psnr,ssim"]
        for epoch in range(1, (epochs if final is not None else 3) + 1):
            left = np.exp(-4 * epoch / epochs) * (1 + 0.2 * rng.random())
            reached = (30.0 if final is None else final) - 4 * left
            lines.append(f"{epoch},{125 * epoch},{2.5 * epoch + rng.random():.3f},{0.02 + 0.08 * left},{reached},0.9")
        (job / "history.csv").write_text("\n".join(lines) + "\n")
        if crops and final is not None:
            gap = np.full((96, 8, 3), 255, np.uint8)
            bicubic = (hr // 2) + 64
            sr = np.clip(hr.astype(int) + rng.integers(-20, 20, hr.shape), 0, 255).astype(np.uint8)
            write_image(job / "crop.png", Picture(np.concatenate([bicubic, gap, sr, gap, hr], axis=1)))
        if settings.get("norm") == "bn":
            said = {"problem": "vanishing gradients", "text": "The first layer sees 0.01 of the last.", "group": "init"}
            (job / "diagnoses.json").write_text(json.dumps({"sentences": [said], "layers": []}))
    (folder / "sweep.json").write_text(json.dumps({"version": 1, **about.plain(), "jobs": jobs}))
    return folder


def write_result(
    job: Path,
    settings: Mapping[str, str],
    overrides: Sequence[str],
    psnr: float | None,
    *,
    parameters: int = 11_000,
    rng: np.random.Generator | None = None,
) -> Result:
    state: State = "diverged" if psnr is None else "finished"
    rest: dict[str, Any] = {"reason": "the loss was not finite in epoch 3 (step 375)"} if psnr is None else {}
    result = Result(
        state=state,
        choices=CHOICES | {key: value for key, value in settings.items() if key in CHOICES},
        overrides=list(overrides),
        seed=int(settings.get("seed", 1)),
        scale=2,
        psnr=psnr,
        ssim=None if psnr is None else psnr / 35,
        psnr_bicubic=31.5,
        gain=None if psnr is None else psnr - 31.5,
        parameters=parameters,
        seconds=30.0 + (0 if rng is None else 5 * rng.random()) + (12.0 if settings.get("norm") == "bn" else 0.0),
        **rest,
    )
    result.write(job)
    return result
