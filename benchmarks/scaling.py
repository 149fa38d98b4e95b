"""What grows with the number of jobs, ranks, images and pixels; writes scaling.json and the tables of docs/scaling.md.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/scaling.py    # about half an hour, on a quiet machine
    python benchmarks/scaling.py --quick        # does it run at all? Writes nothing
    python benchmarks/scaling.py megapixels     # one part; the others stay
    python benchmarks/scaling.py --render       # only the tables, from the json

Every figure is of a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from upsweep.common.machine import memory_of

HERE = Path(__file__).resolve()
ROOT = HERE.parent.parent
DOOR = ROOT / "src" / "train.py"
PAGE = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- figures: written by benchmarks/scaling.py -->", "<!-- end of figures -->"
TINY = ["trainer.max_epochs=1", "data.patches_per_epoch=160", "generator.width=4"]
CLOCK = ["+callbacks.clock._target_=job_overhead.Clock", "+callbacks.clock.folder=${hydra:runtime.output_dir}"]
MB = 1e6
Row = dict[str, float | int | str | None]

FULL: dict[str, list[float]] = {
    "jobs": [1, 4, 16, 64],
    "ranks": [1, 2],
    "images": [10, 100, 1_000, 10_000],
    "megapixels": [0.1, 1, 5, 10, 25, 50],
}
QUICK: dict[str, list[float]] = {"jobs": [1, 2], "ranks": [1, 2], "images": [10, 50], "megapixels": [0.1, 0.5]}


def run(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Seconds, and the peaks in MB of the process itself and of it with all its children (sampled)."""
    path = os.pathsep.join([str(HERE.parent), str(DOOR.parent)])
    started, own, every = time.perf_counter(), 0.0, 0.0
    with psutil.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None:
            try:
                own = max(own, process.memory_info().rss / MB)
                every = max(every, memory_of(process.pid) / MB)
            except psutil.NoSuchProcess:
                pass  # a child has just ended
            time.sleep(0.5)
        if process.returncode:
            raise RuntimeError(f"{command} ended with {process.returncode}")
    return time.perf_counter() - started, own, every


def jobs(count: float, folder: Path) -> Row:
    """A sweep of so many tiny jobs, as many at a time as there are cores, with the default logger."""
    out = folder / f"jobs {count}"
    seeds = ",".join(map(str, range(int(count))))
    given = ["-m", "trainer=cpu", *TINY, *CLOCK, f"seed={seeds}"]
    seconds, own, every = run([str(DOOR), *given, f"hydra.sweep.dir='{out}'"], folder)
    files = [path for path in out.rglob("*") if path.is_file()]
    return {
        "jobs": int(count),
        "seconds": seconds,
        "seconds a job": seconds / count,
        "of it training": sum(float(file.read_text()) for file in out.rglob("training_seconds")) / count,
        "launcher MB": own,
        "all processes MB": every,
        "files": len(files),
        "files MB": sum(path.stat().st_size for path in files) / MB,
    }


def ranks(count: float, folder: Path) -> Row:
    """One training of 200 steps of 16 patches a rank, on CPU ranks with a thread each."""
    out = folder / f"ranks {count}"
    given = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={int(count)}", "logger=none"]
    size = [f"data.patches_per_epoch={3_200 * int(count)}", "trainer.max_epochs=1"]
    seconds, _, every = run([str(DOOR), *given, *size, *CLOCK, f"hydra.run.dir='{out}'"], folder)
    training = float((out / "training_seconds").read_text())
    return {
        "ranks": int(count),
        "seconds": seconds,
        "training seconds": training,
        "patches a second": 3_200 * count / training,
        "all processes MB": every,
    }


def child(what: str, size: float, folder: Path) -> Row:
    """A measurement in a process of its own, which prints its row."""
    command = [sys.executable, str(HERE), "--child", what, str(size), str(folder)]
    path = os.pathsep.join([str(HERE.parent), str(DOOR.parent)])
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    if done.returncode:
        return {what: size, "what happened": (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]}
    row: Row = json.loads(done.stdout)
    return row


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB


def measure_images(count: float, folder: Path) -> Row:
    """So many photos of 128 x 128 pixels: prepared, opened again, and cut into LR patches of 20 pixels."""
    import numpy as np
    from PIL import Image

    from upsweep.data.photos import TRAIN, photo_files
    from upsweep.data.store import Settings, open_images
    from upsweep.tasks.super_resolution.patches import TrainPatches

    dice = np.random.default_rng(0)
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in photo_files(TRAIN).values()]
    files = {}
    for i in range(int(count)):
        photo = photos[i % len(photos)]
        top, left = (int(dice.integers(0, side - 128)) for side in photo.shape[:2])
        files[f"{i}.jpg"] = folder / f"{i}.jpg"
        Image.fromarray(photo[top : top + 128, left : left + 128]).save(files[f"{i}.jpg"], quality=90)
    del photos
    before, settings = peak(), Settings(scale=2, channels=1, colour=False)
    started = time.perf_counter()
    open_images(files, settings, folder / "cache")
    prepared = time.perf_counter()
    images = open_images(files, settings, folder / "cache").images
    opened = time.perf_counter()
    patches, batches = TrainPatches(images, patch_size=20, count=10**6, seed=1), 500
    for batch in range(batches):
        patches.__getitems__([(0, 16 * batch + i) for i in range(16)])
    cut = time.perf_counter()
    return {
        "images": int(count),
        "prepare seconds": prepared - started,
        "open again seconds": opened - prepared,
        "cache MB": sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file()) / MB,
        "memory MB": peak(),
        "of it before MB": before,
        "patches a second": 16 * batches / (cut - opened),
    }


def measure_megapixels(count: float, folder: Path) -> Row:
    """The default generator on a whole image of so many megapixels (x2), and its PSNR and SSIM, on one thread."""
    import torch
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    from upsweep.metrics.metric import PSNR, SSIM
    from upsweep.networks import checkpoints

    del folder
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["callbacks=default", "logger=none"])
    from omegaconf import OmegaConf

    spec: Any = OmegaConf.to_container(config.generator, resolve=True)
    generator = checkpoints.build(spec).eval()
    # What does not fit must fail here, and not take the machine with it.
    limit = int(0.9 * psutil.virtual_memory().available) + psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    side = round((count * 1e6) ** 0.5 / 2)
    lr, before = torch.rand(1, generator.channels, side, side), peak()
    with torch.inference_mode():
        started = time.perf_counter()
        sr = generator(lr)
        enlarged, memory = time.perf_counter(), peak()
        hr = torch.rand_like(sr)
        for metric in (PSNR(instantiate(config.protocol), 2), SSIM(instantiate(config.protocol), 2)):
            metric.update(sr, hr, grey=True)
    return {
        "megapixels": count,
        "enlarge seconds": enlarged - started,
        "judge seconds": time.perf_counter() - enlarged,
        "memory of enlarging MB": memory,
        "of judging too MB": peak(),
        "of it before MB": before,
    }


MEASURE: dict[str, Callable[[float, Path], Row]] = {"images": measure_images, "megapixels": measure_megapixels}
PARTS: dict[str, Callable[[float, Path], Row]] = {
    "jobs": jobs,
    "ranks": ranks,
    "images": lambda count, folder: child("images", count, folder),
    "megapixels": lambda count, folder: child("megapixels", count, folder),
}


def tables(figures: dict[str, Any]) -> str:
    """The figures as Markdown, a table a part."""
    machine = ", ".join(f"{key} {value}" for key, value in figures["machine"].items())
    lines = [BEGIN, "", f"Measured on: {machine}.", ""]
    for part, rows in figures["parts"].items():
        headers = list(dict.fromkeys(key for row in rows for key in row))
        lines += [f"**{part}**: {(MEASURE.get(part) or PARTS[part]).__doc__}", ""]
        lines += ["| " + " | ".join(headers) + " |", "|" + " ---: |" * len(headers)]
        lines += ["| " + " | ".join(_cell(row.get(key)) for key in headers) + " |" for row in rows]
        lines.append("")
    return "\n".join([*lines, END])


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else value


def render(figures: dict[str, Any]) -> None:
    """Put the tables between the page's two marks."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + tables(figures) + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing written")
    parser.add_argument("--render", action="store_true", help="write the tables of docs/scaling.md again")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, size, folder = given.child
        print(json.dumps(MEASURE[what](float(size), Path(folder))))
        return
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    file = HERE.with_suffix(".json")
    figures: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    for part in [] if given.render else given.parts or list(PARTS):
        figures["parts"][part] = []
        for size in (QUICK if given.quick else FULL)[part]:
            with TemporaryDirectory() as temporary:
                row = PARTS[part](size, Path(temporary))
            figures["parts"][part].append(row)
            print(part, {key: _cell(value) for key, value in row.items()}, flush=True)
    figures["machine"] = figures.get("machine") if given.render else machine()
    if given.quick:
        print(tables(figures))
        return
    if not given.render:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    render(figures)


def machine() -> dict[str, str | int | float]:
    import torch

    return {
        "torch": str(torch.__version__),
        "on": platform.machine(),
        "cores": os.cpu_count() or 1,
        "memory GB": round(psutil.virtual_memory().total / 1e9, 1),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "-"),
        "load average at the end": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    main()
