"""What a training step costs here beside a bare PyTorch loop of the same network, data and batch.

    python benchmarks/training_step.py

One real training (`upsweep.training.job.run`, with logging, progress, checkpoints and all) takes turns with a bare
loop: after every ROUND of its steps it waits while the bare loop takes as many. A figure is the median over the rounds
of time(ours) / time(bare). Writes training_step.json and training_step.md beside itself.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import nn

from upsweep.data.modules import SuperResolutionData

HERE = Path(__file__).resolve().parent
ROUND, ROUNDS = 40, 9
CASES = {
    "deconvnet, the defaults": ["generator=deconvnet"],
    "deconvnet, batch norm": ["generator=deconvnet", "norm=bn"],
    "fsrcnn": ["generator=fsrcnn"],
}


class Duel(Callback):
    """Times ROUND steps of the training, then ROUND steps of a bare loop, and so on; writes both at the end."""

    def __init__(self, network: nn.Module, data: SuperResolutionData, file: str) -> None:
        data.setup("fit")
        self.network, self.optimizer = network, torch.optim.Adam(network.parameters(), lr=1e-4)
        self.loader, self.file = data.train_dataloader(), Path(file)
        self.batches = iter(self.loader)
        self.ours: list[float] = []
        self.bare: list[float] = []

    def on_train_start(self, *_: Any) -> None:
        self.loop()  # warm up
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % ROUND == 0:
            self.ours.append((time.perf_counter() - self.began) / ROUND)
            self.bare.append(self.loop() / ROUND)
            self.began = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        self.file.write_text(json.dumps({"ours": self.ours, "bare": self.bare}))

    def loop(self) -> float:
        began = time.perf_counter()
        for _ in range(ROUND):
            batch = next(self.batches, None)
            if batch is None:
                self.batches = iter(self.loader)
                batch = next(self.batches)
            self.optimizer.zero_grad()
            loss = F.l1_loss(self.network(batch.lr), batch.hr)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        return time.perf_counter() - began


def measure(overrides: list[str], threads: int, folder: Path) -> dict[str, float]:
    """Ours against bare, in seconds a step, over ROUNDS rounds after one to warm up."""
    duel = {
        "_target_": "training_step.Duel",
        "_convert_": "all",
        "network": "${generator}",
        "data": "${data}",
        "file": folder / "duel.json",
    }
    subprocess.run(
        [
            sys.executable,
            HERE.parent / "src" / "train.py",
            *overrides,
            "optimizer=adam",  # and the layout: as the bare loop has them
            "channels_last=false",
            f"data.patches_per_epoch={16 * ROUND * (ROUNDS + 1)}",
            "trainer.max_epochs=1",
            "trainer.limit_val_batches=1",
            f"hydra.run.dir={folder}/run",
            *(f"+callbacks.duel.{key}={value}" for key, value in duel.items()),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": str(threads)},
    )
    times = json.loads((folder / "duel.json").read_text())
    ours, bare = times["ours"][1:], times["bare"][1:]
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "ratio": round(median(ratios), 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "ours_ms": round(1000 * median(ours), 2),
        "bare_ms": round(1000 * median(bare), 2),
    }


def main() -> None:
    figures = []
    for threads in (1, 2):
        for what, overrides in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                figures.append({"what": what, "threads": threads, **measure(overrides, threads, Path(folder))})
            print(*figures[-1].values(), flush=True)
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    (HERE / "training_step.json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    lines = [
        "# A training step beside a bare loop",
        "",
        "time(ours) / time(bare PyTorch loop), median (quartiles) of alternating rounds; the target is 1.03.",
        f"Made by `python benchmarks/training_step.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
        "",
        "| what | threads | ratio | ours, ms | bare, ms |",
        "|---|---|---|---|---|",
        *(
            f"| {f['what']} | {f['threads']} | {f['ratio']:.3f} ({f['low']:.3f} to {f['high']:.3f}) "
            f"| {f['ours_ms']:.2f} | {f['bare_ms']:.2f} |"
            for f in figures
        ),
    ]
    (HERE / "training_step.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
