"""A training step in other layouts, precisions and forms: how long it takes, and what it does to PSNR at equal steps.

    python benchmarks/training_forms.py

Run it on a quiet machine. Every variant is the same network, from the same seed, on the same batches, with the default
optimizer; the variants take turns, ROUND steps each. Writes training_forms.json and training_forms.md beside itself.
"""

import copy
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR

from upsweep.blocks.layout import as_channels_last, in_channels_last
from upsweep.common.memory import keep_freed
from upsweep.networks import checkpoints
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.judging import evaluate, mean
from upsweep.training.optimizers import parameter_groups

HERE = Path(__file__).resolve().parent
ROUND, ROUNDS = 20, 30
BASE = "float32, NCHW"
GENERATORS = {"deconvnet x2, the defaults": ["generator=deconvnet"], "fsrcnn x2": ["generator=fsrcnn"]}


@dataclass
class Variant:
    """One way to do the same: overrides of the config, layout, precision."""

    overrides: list[str] = field(default_factory=list)
    nhwc: bool = False
    bf16: bool = False

    def step(self, data: PatchData, overrides: list[str]) -> tuple[Callable[[], None], Any]:
        """What takes one step of the training, and the network that it trains."""
        cfg = composed([*overrides, *self.overrides])
        torch.manual_seed(1)
        network = checkpoints.build(OmegaConf.to_container(cfg.generator, resolve=True))  # type: ignore[arg-type]
        if self.nhwc:
            in_channels_last(network)
        optimizer = instantiate(cfg.optimizer, _convert_="all")(parameter_groups(network))
        schedule = CosineAnnealingLR(optimizer, ROUND * (ROUNDS + 1))
        batches = forever(data)

        def laid_out(lr: Tensor) -> Tensor:
            return as_channels_last(lr) if self.nhwc else lr

        def step() -> None:
            batch = next(batches)
            context: AbstractContextManager[Any] = torch.autocast("cpu", torch.bfloat16) if self.bf16 else nullcontext()
            optimizer.zero_grad()
            with context:
                loss = F.l1_loss(network(laid_out(batch.lr)), batch.hr)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()

        return step, network


VARIANTS = {
    BASE: Variant(),
    "float32, NHWC": Variant(nhwc=True),
    "float32, NHWC, every deconvolution as such": Variant(["upsampler.form=deconv"], nhwc=True),
    "float32, NHWC, every one as sub-pixel convolution": Variant(["upsampler.form=subpixel"], nhwc=True),
    "bfloat16 autocast, NHWC": Variant(nhwc=True, bf16=True),
}


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(str(HERE.parent / "conf"), version_base="1.3"):
        return compose("train", ["logger=none", *overrides])


def forever(data: PatchData) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def compare(overrides: list[str]) -> list[dict[str, Any]]:
    cfg = composed([*overrides, f"data.patches_per_epoch={16 * ROUND * (ROUNDS + 1)}"])
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    steps, networks = {}, {}
    for name, variant in VARIANTS.items():
        data: PatchData = instantiate(cfg.task.data, _convert_="all")
        data.setup("fit")
        steps[name], networks[name] = variant.step(data, overrides)
    for turn in range(ROUNDS + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(ROUND):
                step()
            seconds[name].append((time.perf_counter() - began) / ROUND)
        if turn == 0:  # it warms up
            seconds = {name: [] for name in VARIANTS}
    images: Any = data.val_dataloader().dataset
    rows = []
    for name, network in networks.items():
        ratios = [own / base for own, base in zip(seconds[name], seconds[BASE], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        psnr, _ = mean(evaluate(copy.deepcopy(network).eval(), images, instantiate(cfg.protocol)))
        rows.append(
            {
                "variant": name,
                "ms": round(1000 * median(seconds[name]), 2),
                "ratio": round(median(ratios), 3),
                "low": round(low, 3),
                "high": round(high, 3),
                "psnr": round(psnr, 3),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    load = round(os.getloadavg()[0], 1)
    keep_freed()  # as every training does
    figures = {what: compare(overrides) for what, overrides in GENERATORS.items()}
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "bfloat16 units": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load before": load,
    }
    (HERE / "training_forms.json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    lines = [
        "# A training step in other layouts, precisions and forms",
        "",
        f"Time of a step over that of `{BASE}`, median (quartiles) of {ROUNDS} alternating rounds of {ROUND} steps;",
        f"PSNR on the validation photos after {ROUND * (ROUNDS + 1)} steps under a cosine, one seed.",
        f"Made by `python benchmarks/training_forms.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
    ]
    for what, rows in figures.items():
        lines += ["", f"## {what}", "", "| variant | ms | ratio | PSNR, dB |", "|---|---|---|---|"]
        lines += [
            f"| {r['variant']} | {r['ms']} | {r['ratio']:.3f} ({r['low']:.3f} to {r['high']:.3f}) | {r['psnr']:.2f} |"
            for r in rows
        ]
    (HERE / "training_forms.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
