"""How long an explanation takes: FSRCNN x2 before a photo of 480x320, all sections, at most 20 s on two cores.

    python benchmarks/explaining.py

The whole door in a fresh process, with what it imports and writes: wall time, and the CPU time (user and system) of the
process, which says more where the machine is not quiet. Beside it each section alone, in a process that has made all of
them once. The photo is the middle of coffee. Writes explaining.json and explaining.md beside itself; exits 1 if the
median of the whole is above the bound.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from upsweep import release
from upsweep.common.progress import Bar
from upsweep.data.photos import photo_files
from upsweep.explaining.photo import Photo
from upsweep.explaining.upscalers import PARTS, BeforePhoto
from upsweep.networks.checkpoints import load_upscaler

NETWORK, PHOTO, WIDTH, HEIGHT = "fsrcnn_x2", "coffee.png", 480, 320
RUNS, BOUND = 5, 20.0
HERE = Path(__file__).resolve()
DOOR = HERE.parent.parent / "src" / "explain.py"

Seconds = dict[str, float]


def crop(file: Path) -> None:
    """The middle of the photo as a PNG."""
    with Image.open(photo_files((PHOTO,))[PHOTO]) as photo:
        left, top = (photo.width - WIDTH) // 2, (photo.height - HEIGHT) // 2
        photo.crop((left, top, left + WIDTH, top + HEIGHT)).save(file)


def taken(run: Callable[[], object], who: int) -> Seconds:
    """Wall and CPU seconds of one run, in this process or its children."""
    before, start = resource.getrusage(who), time.perf_counter()
    run()
    wall, after = time.perf_counter() - start, resource.getrusage(who)
    return {"wall": wall, "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def middle(runs: list[Seconds]) -> Seconds:
    """The median of each kind of second, and the longest wall time."""
    found = {kind: median(run[kind] for run in runs) for kind in ("wall", "cpu")}
    return {**found, "longest": max(run["wall"] for run in runs)}


def whole(photo: Path, folder: Path) -> Seconds:
    """The door in a process of its own."""
    asked = [f"checkpoint={NETWORK}", f"input={photo}", f"output={folder}", "overwrite=true"]
    command = [sys.executable, str(DOOR), *asked]
    return taken(lambda: subprocess.run(command, check=True, capture_output=True), resource.RUSAGE_CHILDREN)


def section(part: str, photo: Path) -> Seconds:
    """One section in this process; the photo is read anew."""
    networks = {NETWORK: load_upscaler(release.located(NETWORK))}
    explainer = BeforePhoto(photo=Photo.read(photo), parts=(part,)).where_they_differ(networks.items(), 16)
    with Bar(1) as bar:
        return taken(lambda: [*explainer.sections(networks, bar)], resource.RUSAGE_SELF)


def measured() -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        photo = Path(folder) / "coffee.png"
        crop(photo)
        load = os.getloadavg()[0]
        cold = middle([whole(photo, Path(folder) / "out") for _ in range(RUNS)])
        for part in PARTS:
            section(part, photo)  # what is loaded once
        warm = {part: middle([section(part, photo) for _ in range(RUNS)]) for part in PARTS}
    machine = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load average before": round(load, 1),
    }
    return {"whole": cold, "sections": warm, "bound": BOUND, "within": cold["wall"] <= BOUND, "machine": machine}


def table(result: dict[str, Any]) -> str:
    rows = {"all, in a fresh process": result["whole"], **result["sections"]}
    machine = ", ".join(f"{what} {value}" for what, value in result["machine"].items())
    return "\n".join(
        [
            "# Explaining a network",
            "",
            f"Made by `python benchmarks/explaining.py`: {machine}.",
            "",
            f"`{NETWORK}` before {WIDTH}x{HEIGHT} pixels of coffee. Seconds: medians of {RUNS} runs, and the longest "
            f"(all: at most {result['bound']:.0f} s of wall time).",
            "",
            "| section | wall | CPU | longest wall |",
            "| --- | ---: | ---: | ---: |",
            *(
                f"| {name} | {one['wall']:.2f} | {one['cpu']:.2f} | {one['longest']:.2f} |"
                for name, one in rows.items()
            ),
            "",
        ]
    )


def main() -> None:
    result = measured()
    here = HERE.with_suffix("")
    here.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))
    sys.exit(0 if result["within"] else 1)


if __name__ == "__main__":
    main()
