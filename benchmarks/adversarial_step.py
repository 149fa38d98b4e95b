"""What a step of both players costs here beside a bare PyTorch loop of the same networks, data and batch.

    python benchmarks/adversarial_step.py [rounds]

One real training (`src/train.py`, with logging, progress, EMA and all, and as many looks of the diagnoses as fall on
so many batches of a default run) takes turns with two bare loops in the same process: after every ROUND of its
batches it waits while each of them takes as many. Both have the same loader, zero_grad and EMA, too, and lay weights
and images out as the training does. `plain` is the loop of PyTorch's DCGAN example; `frozen` spares the gradients of
the discriminator's weights in the generator's turn, as our training does. A figure is the median over the rounds of
time(ours) / time(bare), with its quartiles, on the clock and of the process's CPU alone, which hangs less on who else
works. Writes adversarial_step.json and .md beside itself.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from upsweep.blocks.layout import as_channels_last, in_channels_last
from upsweep.networks import checkpoints
from upsweep.training.adversarial import Adversarial

HERE = Path(__file__).resolve().parent
ROUND, ROUNDS = 50, 9
LOOKS, BATCHES = 12, 3000  # of the diagnoses, in so many batches: a default run's
LOOPS, CLOCKS = ("plain", "frozen"), ("", ", CPU")
CASES = {
    "dcgan": ["adversary=dcgan"],
    "dcgan, twice as wide": ["adversary=dcgan", "generator.width=32", "adversary.discriminator.width=32"],
    "hinge, spectral norm": ["adversary=hinge"],
    "wgan_gp": ["adversary=wgan_gp"],
}


class Duel(Callback):
    """Times ROUND batches of the training, then ROUND of the bare loop, and so on; writes the times at the end."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.times: dict[str, list[float]] = {f"{who}{clock}": [] for clock in CLOCKS for who in ("ours", *LOOPS)}

    def on_train_start(self, _: pl.Trainer, module: Adversarial) -> None:  # type: ignore[override]
        self.steps = {name: bare(module, frozen=name == "frozen") for name in LOOPS}
        self.since = now()

    def on_train_batch_end(self, *args: Any) -> None:
        if (args[-1] + 1) % ROUND == 0:
            self._took("ours")
            for name, step in self.steps.items():
                for _ in range(ROUND):
                    step()
                self._took(name)

    def _took(self, who: str) -> None:
        """Seconds a batch since the last look: on the clock, and of this process alone."""
        before, self.since = self.since, now()
        for name, a, b in zip((who, f"{who}, CPU"), before, self.since, strict=True):
            self.times[name].append((b - a) / ROUND)

    def on_train_end(self, *_: Any) -> None:
        self.file.write_text(json.dumps(self.times))


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def bare(module: Adversarial, *, frozen: bool) -> Callable[[], None]:
    """A step as anybody would write it, of copies of both networks: a call takes a batch."""
    adversary, data = module.adversary, module.task.data
    loss, penalties = adversary.loss, adversary.penalties
    g, d = in_channels_last(checkpoints.build(module._spec)), in_channels_last(adversary.build())
    adam_g, adam_d = (torch.optim.Adam(n.parameters(), 5e-4, (0.5, 0.999)) for n in (g, d))
    average = {name: value.clone() for name, value in g.state_dict().items()}
    batches, turn = forever(data), 0

    def step() -> None:
        nonlocal turn
        turn += 1
        latent, real = next(batches)
        real, due = as_channels_last(real), turn % adversary.steps == 0
        with torch.set_grad_enabled(due):
            made = g(latent)
        adam_d.zero_grad()
        (loss.discriminator(d(real), d(made.detach())) + penalties(d, real, made.detach())).backward()  # type: ignore[no-untyped-call]
        adam_d.step()
        if due:
            adam_g.zero_grad()
            d.requires_grad_(not frozen)
            loss.generator(d(real) if loss.compares else None, d(made)).backward()  # type: ignore[no-untyped-call]
            d.requires_grad_(True)
            adam_g.step()
            averaged(average, g)

    return step


def averaged(average: dict[str, Tensor], network: nn.Module) -> None:
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 0.01)


def forever(data: Any) -> Iterator[Any]:
    while True:
        yield from data.train_dataloader()


def measure(overrides: list[str], threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Ours and the bare loop's, in seconds a batch, over `rounds` after one to warm up."""
    subprocess.run(
        [
            *(
                sys.executable,
                str(HERE.parent / "src" / "train.py"),
                "task=generation",
                *overrides,
                "trainer.max_epochs=1",
            ),
            *("data.batch_size=64", f"data.patches_per_epoch={64 * ROUND * (rounds + 1)}", "data.samples=64"),
            *("trainer=cpu", "channels_last=true", f"hydra.run.dir={folder}/run"),
            f"callbacks.diagnoses.samples={-(-LOOKS * ROUND * (rounds + 1) // BATCHES)}",
            *("+callbacks.duel._target_=adversarial_step.Duel", f"+callbacks.duel.file={folder}/duel.json"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent / 'src'}", "OMP_NUM_THREADS": str(threads)},
    )
    times = {name: found[1:] for name, found in json.loads((folder / "duel.json").read_text()).items()}
    measured: dict[str, Any] = {"ms": {name: round(1000 * median(found), 2) for name, found in times.items()}}
    for who in (f"{name}{clock}" for name in LOOPS for clock in CLOCKS):
        ours = times["ours, CPU" if who.endswith(CLOCKS[1]) else "ours"]
        ratios = [a / b for a, b in zip(ours, times[who], strict=True)]
        low, _, high = quantiles(ratios, n=4)
        measured[f"ours / {who}"] = [round(x, 3) for x in (median(ratios), low, high)]
    return measured


def report(machine: dict[str, Any], figures: list[dict[str, Any]]) -> str:
    ratios = [f"ours / {name}{clock}" for name in LOOPS for clock in CLOCKS]
    times = [f"{who}, CPU" for who in ("ours", *LOOPS)]
    head = ["what", *ratios, f"ms: {'; '.join(times)}"]
    lines = [
        "# A step of both players beside a bare loop\n",
        "time(ours) / time(bare), median (quartiles) of alternating rounds, one thread; the target is 1.05. `plain` is",
        "the loop of PyTorch's DCGAN example; `frozen` spares the discriminator's gradients in the generator's turn.",
        f"Made by `python benchmarks/adversarial_step.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.\n",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for figure in figures:
        ms = ", ".join(str(figure["ms"][who]) for who in times)
        cells = [figure["what"], *("{} ({} to {})".format(*figure[ratio]) for ratio in ratios), ms]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(rounds: int) -> None:
    figures: list[dict[str, Any]] = []
    load = round(os.getloadavg()[0], 1)
    for what, overrides in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            figures.append({"what": what, "threads": 1, **measure(overrides, 1, rounds, Path(folder))})
        print(*figures[-1].values(), flush=True)
    machine = {"torch": torch.__version__, "on": platform.machine(), "cores": os.cpu_count(), "load before": load}
    (HERE / "adversarial_step.md").write_text(report(machine, figures))
    (HERE / "adversarial_step.json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else ROUNDS)
