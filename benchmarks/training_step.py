"""What a training step costs here beside bare PyTorch loops of the same network, data and batch.

    python benchmarks/training_step.py

One real training (`upsweep.training.job.train`, with logging, progress, checkpoints and all) takes turns with two bare
loops, each in a process of its own: after every ROUND of its steps it waits while each of them takes as many. `bare` is
the loop as anybody would write it; `bare, our memory` has what `upsweep.common.memory` and `upsweep.cli` say to the C
library and to OpenMP, by environment variables. A figure is the median over the rounds of time(ours) / time(bare).
Writes training_step.json and training_step.md beside itself.
"""

import json
import os
import platform
import resource
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
from hydra.utils import instantiate
from omegaconf import OmegaConf
from pytorch_lightning.callbacks import Callback
from training_forms import composed, forever

from upsweep.common.memory import BLOCK, IDLE
from upsweep.networks import checkpoints
from upsweep.tasks.super_resolution.data import PatchData

HERE = Path(__file__).resolve().parent
ROUND, ROUNDS = 125, 7  # 1,000 steps with the first round, as by default: the diagnoses look at twelve of them
CASES = {
    "deconvnet, the defaults": ["generator=deconvnet"],
    "deconvnet, batch norm": ["generator=deconvnet", "norm=bn"],
    "fsrcnn": ["generator=fsrcnn"],
}
OURS = {"MALLOC_TRIM_THRESHOLD_": str(IDLE), "MALLOC_MMAP_THRESHOLD_": str(BLOCK), "GOMP_SPINCOUNT": "4000"}
RIVALS: dict[str, dict[str, str]] = {"bare": {}, "bare, our memory": OURS}


class Duel(Callback):
    """Times ROUND steps of the training, then ROUND steps of every rival, and so on; writes all times at the end."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.rounds: dict[str, list[list[float]]] = {name: [] for name in ("ours", *RIVALS)}
        plain = {name: value for name, value in os.environ.items() if name not in OURS}
        command = [sys.executable, __file__, "--bare", *json.loads(os.environ["DUEL"])]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.rivals = {
            name: subprocess.Popen(command, env={**plain, **variables}, **pipes) for name, variables in RIVALS.items()
        }

    def on_train_start(self, *_: Any) -> None:
        for rival in self.rivals.values():
            turn(rival)  # warms up
        self.before = spent()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step % ROUND == 0:
            self.rounds["ours"].append(a_step(self.before))
            for name, rival in self.rivals.items():
                self.rounds[name].append(turn(rival))
            self.before = spent()

    def on_train_end(self, *_: Any) -> None:
        for rival in self.rivals.values():
            rival.communicate()
        self.file.write_text(json.dumps(self.rounds))


def spent() -> tuple[float, int]:
    """The clock in seconds, and the pages of memory that the system has cleared for this process."""
    return time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def a_step(before: tuple[float, int]) -> list[float]:
    """Seconds and pages of each of the ROUND steps since then."""
    return [(now - then) / ROUND for now, then in zip(spent(), before, strict=True)]


def turn(rival: "subprocess.Popen[str]") -> list[float]:
    """Let it take its steps; what `a_step` says of them."""
    assert rival.stdin is not None and rival.stdout is not None
    rival.stdin.write("go\n")
    rival.stdin.flush()
    found: list[float] = json.loads(rival.stdout.readline())
    return found


def bare(overrides: list[str]) -> None:
    """Takes ROUND steps whenever a line arrives, and answers with what `a_step` says of them."""
    cfg = composed(overrides)
    data: PatchData = instantiate(cfg.task.data, _convert_="all")
    data.setup("fit")
    network = checkpoints.build(OmegaConf.to_container(cfg.generator, resolve=True))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    batches = forever(data)
    for _ in sys.stdin:
        before = spent()
        for _ in range(ROUND):
            batch = next(batches)
            optimizer.zero_grad()
            loss = F.l1_loss(network(batch.lr), batch.hr)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        print(json.dumps(a_step(before)), flush=True)


def measure(overrides: list[str], threads: int, folder: Path) -> dict[str, Any]:
    """Ours against every rival, in seconds a step, over ROUNDS rounds after one to warm up."""
    steps = f"data.patches_per_epoch={16 * ROUND * (ROUNDS + 1)}"
    duel = {"PYTHONPATH": str(HERE), "DUEL": json.dumps([*overrides, steps]), "OMP_NUM_THREADS": str(threads)}
    subprocess.run(
        [
            sys.executable,
            HERE.parent / "src" / "train.py",
            *overrides,
            steps,
            "optimizer=adam",  # and the layout: as the bare loops have them
            "channels_last=false",
            "trainer.max_epochs=1",
            "trainer.limit_val_batches=1",
            f"hydra.run.dir={folder}/run",
            "+callbacks.duel._target_=training_step.Duel",
            f"+callbacks.duel.file={folder}/duel.json",
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **duel},
    )
    rounds = json.loads((folder / "duel.json").read_text())
    times, pages = ({name: [one[i] for one in found[1:]] for name, found in rounds.items()} for i in (0, 1))
    figures: dict[str, Any] = {
        "ms": {name: round(1000 * median(found), 2) for name, found in times.items()},
        "pages": {name: round(median(found)) for name, found in pages.items()},
    }
    for name in RIVALS:
        ratios = [a / b for a, b in zip(times["ours"], times[name], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        figures[name] = {"ratio": round(median(ratios), 3), "low": round(low, 3), "high": round(high, 3)}
    return figures


def main() -> None:
    figures: list[dict[str, Any]] = []
    load = round(os.getloadavg()[0], 1)
    for threads in (1, 2):
        for what, overrides in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                figures.append({"what": what, "threads": threads, **measure(overrides, threads, Path(folder))})
            print(*figures[-1].values(), flush=True)
    machine = {"torch": torch.__version__, "on": platform.machine(), "cores": os.cpu_count(), "load before": load}
    (HERE / "training_step.json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")

    def cell(found: dict[str, float]) -> str:
        return f"{found['ratio']:.3f} ({found['low']:.3f} to {found['high']:.3f})"

    lines = [
        "# A training step beside bare loops",
        "",
        "time(ours) / time(bare PyTorch loop), median (quartiles) of alternating rounds; the target is 1.03. The",
        "second bare loop has our settings of malloc and OpenMP. Pages: those that the system clears in a step.",
        f"Made by `python benchmarks/training_step.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
        "",
        "| what | threads | ours / bare | ours / bare, our memory | ms: ours, bare, bare with our memory | pages |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f['what']} | {f['threads']} | {' | '.join(cell(f[name]) for name in RIVALS)} "
            f"| {', '.join(f'{ms:.2f}' for ms in f['ms'].values())} | {', '.join(map(str, f['pages'].values()))} |"
            for f in figures
        ),
    ]
    (HERE / "training_step.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        bare(sys.argv[2:])
    else:
        main()
