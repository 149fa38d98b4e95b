"""What `make sweep` gains by running jobs side by side in forked processes, and whether their PSNR stays.

    python benchmarks/parallel_jobs.py

The main sweep (init=xavier,he norm=bn,none) with `EPOCHS` epochs runs in two ways, in turns: one job at a time, in
processes that start from nothing, each with all threads, as up to version 0.1; and by default, as many at a time as the
machine has cores, forked. Writes parallel_jobs.json and parallel_jobs.md beside itself; exits 1 if the ratio of their
times is above `MOST`, or a PSNR moves by more than `NOISE`.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

ROUNDS, EPOCHS = 3, 4
MOST, NOISE = 0.55, 0.02  # of the time; dB
HERE = Path(__file__).resolve()
DOOR = HERE.parent.parent / "src" / "train.py"
SWEEP = [sys.executable, str(DOOR), "-m", "init=xavier,he", "norm=bn,none", f"trainer.max_epochs={EPOCHS}"]
WAYS = {"one at a time": ["hydra.launcher.parallel=1", "hydra.launcher.fork=false"], "by default": []}


def run(way: str, folder: Path) -> tuple[float, dict[str, float]]:
    """Seconds of the sweep, and the PSNR of each job."""
    started = time.perf_counter()
    command = [*SWEEP, *WAYS[way], f"hydra.sweep.dir='{folder}'", f"data.cache_dir='{folder.parent / 'cache'}'"]
    subprocess.run(command, cwd=folder.parent, check=True, stdout=subprocess.DEVNULL)
    results = (json.loads(file.read_text()) for file in sorted(folder.glob("*/result.json")))
    return time.perf_counter() - started, {" ".join(each["overrides"][:2]): each["figures"]["psnr"] for each in results}


def main() -> None:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    psnr: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as temporary:
        run("by default", Path(temporary) / "warm")  # file caches, and the images' own, are warm from here on
        for round_ in range(ROUNDS):
            for way in WAYS if round_ % 2 else reversed(WAYS):
                took, psnr[way] = run(way, Path(temporary) / f"{way} {round_}")
                seconds[way].append(took)
                print(f"{round_} {way}: {took:.1f} s", flush=True)
    ratio = median(new / old for old, new in zip(*seconds.values(), strict=True))
    before, now = psnr.values()
    moved = max(abs(now[job] - before[job]) for job in before)
    figures = {"seconds": seconds, "psnr": psnr, "ratio": ratio, "largest difference dB": moved}
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    HERE.with_suffix(".json").write_text(json.dumps({"machine": machine, "figures": figures}, indent=1) + "\n")
    rows = "\n".join(
        f"| {way} | {median(seconds[way]):.1f} | {' / '.join(f'{value:.2f}' for value in psnr[way].values())} |"
        for way in WAYS
    )
    HERE.with_suffix(".md").write_text(
        f"""# The main sweep, one job at a time and side by side

Made by `python benchmarks/parallel_jobs.py`: {", ".join(f"{k} {v}" for k, v in machine.items())}; medians of
{ROUNDS} alternating rounds, {EPOCHS} epochs.

| jobs | seconds | PSNR of {", ".join(before)} |
|---|---|---|
{rows}

By default the sweep takes {ratio:.2f} of the time (the bound is {MOST}), and no PSNR moves by more than
{moved:.3f} dB.
"""
    )
    sys.exit(ratio > MOST or moved > NOISE)


if __name__ == "__main__":
    main()
