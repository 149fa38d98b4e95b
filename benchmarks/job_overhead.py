"""What a job costs beyond its training, against the imports that no training can do without.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/job_overhead.py

Overhead is the wall time of `python src/train.py` with the default logger and callbacks, less the time between the
start and the end of its training loop (its validations included). The imports, a single job, and sweeps of eight jobs,
whose processes start from nothing or are forked, take turns, so that whatever else the machine does meets all of them.
The CPU time (user and system, of a command and all its children) is told beside it: it says more where the machine is
not quiet. Writes job_overhead.json and job_overhead.md beside itself; exits 1 if an overhead is above its bound.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

ROUNDS = 3
FACTOR, CONSTANT = 1.3, 1.0  # the bound of a single job: so many times the imports, and so many seconds
MOST = 1.2  # seconds: the bound of a job of a sweep, two at a time, beside the imports that all of them share
JOBS = 8
HERE = Path(__file__).resolve()
DOOR = HERE.parent.parent / "src" / "train.py"
IMPORTS = [sys.executable, "-c", "import torch, pytorch_lightning, wandb"]
TINY = [
    *("trainer=cpu", "trainer.max_epochs=1", "data.patches_per_epoch=160", "generator.width=4"),
    "+callbacks.clock._target_=job_overhead.Clock",
    "+callbacks.clock.folder=${hydra:runtime.output_dir}",
]
KINDS = {
    "imports": IMPORTS,
    "job": [sys.executable, str(DOOR), *TINY],
}
SWEEP = [sys.executable, str(DOOR), "-m", *TINY, f"seed=range(1,{JOBS + 1})", "report.enabled=false"]
KINDS |= {
    f"{start}, {many} at a time": [*SWEEP, f"hydra.launcher.parallel={many}", f"hydra.launcher.fork={fork}"]
    for start, fork in (("fresh", "false"), ("forked", "true"))
    for many in (1, 2)
}


class Clock(Callback):
    """Writes how long the training loop took into the job's folder."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        (self.folder / "training_seconds").write_text(str(time.perf_counter() - self.started))


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(kind: str, round_: int, folder: Path) -> tuple[float, float, list[float]]:
    """Wall and CPU time of a command, and the training time of each of its jobs."""
    out = folder / f"{kind} {round_}"
    given = [] if kind == "imports" else [f"hydra.run.dir='{out}'", f"hydra.sweep.dir='{out}'"]
    path = os.pathsep.join([str(HERE.parent), str(DOOR.parent)])
    start, cpu = time.perf_counter(), cpu_of_children()
    subprocess.run(
        [*KINDS[kind], *given],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    took = time.perf_counter() - start
    return took, cpu_of_children() - cpu, [float(file.read_text()) for file in sorted(out.rglob("training_seconds"))]


def main() -> None:
    walls: dict[str, list[float]] = {kind: [] for kind in KINDS}
    cpus: dict[str, list[float]] = {kind: [] for kind in KINDS}
    trainings: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind in ("imports", "job"):  # file caches, and the images' own, are warm from here on
            seconds(kind, -1, folder)
        for round_ in range(ROUNDS):
            for kind in KINDS if round_ % 2 else reversed(KINDS):
                wall, cpu, training = seconds(kind, round_, folder)
                walls[kind].append(wall)
                cpus[kind].append(cpu)
                trainings[kind].append(sum(training))
                print(
                    f"{round_} {kind}: {wall:.2f} s ({cpu:.2f} s CPU), of which {sum(training):.2f} s training",
                    flush=True,
                )
    imports = median(walls["imports"])

    def beyond(kind: str, many: int = 1) -> float:
        """Seconds of a job beyond its training; those of jobs that ran side by side count in part."""
        pairs = zip(walls[kind], trainings[kind], strict=True)
        return median((wall - training / many) / (1 if kind == "job" else JOBS) for wall, training in pairs)

    overhead, bound = beyond("job"), FACTOR * imports + CONSTANT
    sweeps = {kind: beyond(kind, int(kind.split()[1])) for kind in KINDS if kind.endswith("at a time")}
    figures = {
        "imports_seconds": imports,
        "overhead_seconds": overhead,
        "bound_seconds": bound,
        "sweep_overhead_seconds": sweeps,
        "holds": overhead <= bound and sweeps["forked, 2 at a time"] - imports / JOBS <= MOST,
        "imports_cpu_seconds": median(cpus["imports"]),
        "job_cpu_seconds": median(cpus["job"]),
    }
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    rounds = {"walls": walls, "cpus": cpus, "trainings": trainings}
    HERE.with_suffix(".json").write_text(
        json.dumps({"machine": machine, "figures": figures, "rounds": rounds}, indent=1) + "\n"
    )
    held = "held" if overhead <= bound else "not held"
    rows = "\n".join(
        f"| {kind} | {median(walls[kind]):.2f} | {median(cpus[kind]):.2f} | {sweeps[kind]:.2f} |" for kind in sweeps
    )
    HERE.with_suffix(".md").write_text(
        f"""# What a job costs beyond its training

Made by `python benchmarks/job_overhead.py`: {", ".join(f"{k} {v}" for k, v in machine.items())}; medians of
{ROUNDS} alternating rounds.

| what | seconds | CPU seconds |
|---|---|---|
| `python -c "import torch, pytorch_lightning, wandb"` | {imports:.2f} | {figures["imports_cpu_seconds"]:.2f} |
| a job, whole | {median(walls["job"]):.2f} | {figures["job_cpu_seconds"]:.2f} |
| a job, less its training | {overhead:.2f} | |
| the bound, {FACTOR} times the imports and {CONSTANT:g} s | {bound:.2f} ({held}) | |

A sweep of {JOBS} jobs without its page. The imports, which forked jobs share, are {imports / JOBS:.2f} s of each; the
bound of what else a forked job takes beyond its training, two at a time, is {MOST} s.

| its processes | seconds | CPU seconds | seconds a job, less its training |
|---|---|---|---|
{rows}
"""
    )
    sys.exit(not figures["holds"])


if __name__ == "__main__":
    main()
