"""Who enlarges a photo fastest on this CPU: PyTorch, OpenVINO, ONNX Runtime, or what engine=auto makes of them.

    python benchmarks/engines.py [ROUNDS]

Run it on a quiet machine; it needs the extra `fast`, and takes about 20 minutes with 3 rounds, the default. The engines
take turns. First in one process, from memory to memory: how fast each is once it is prepared. Then the whole command,
with its imports, the preparation of the engine, and the files. Writes engines.json and engines.md beside itself.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import skimage.data
import torch
from PIL import Image

from upsweep.common.memory import keep_freed
from upsweep.imaging.files import Picture
from upsweep.upscaling.model import load
from upsweep.upscaling.picture import Enlarger

HERE = Path(__file__).resolve().parent
DOOR = HERE.parent / "src" / "upscale.py"
SCALE = 2
MODELS = ("fsrcnn", "deconvnet")
PREPARED = ("torch", "openvino", "onnxruntime")
ENGINES = (*PREPARED, "auto")
CASES = {  # height, width, channels
    "small colour, 300x200": (200, 300, 3),
    "grey, to 1280x720": (360, 640, 1),
    "colour, 2 megapixels": (1200, 1800, 3),
}
Row = dict[str, str | int | float]


def picture(height: int, width: int, channels: int) -> Picture:
    """A photo of that size."""
    colours = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BICUBIC))
    return Picture(np.ascontiguousarray(colours[..., :channels]))


def in_turns(contestants: dict[str, Callable[[], object]], rounds: int) -> Row:
    """Median milliseconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            begun = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - begun)
    return {name: round(1000 * median(times), 1) for name, times in seconds.items()}


def in_memory(model: str, rounds: int) -> Iterable[Row]:
    """How fast each engine is once it is prepared; all must agree to one level."""
    enlargers = {engine: Enlarger(load(None, model, SCALE, engine=engine)[0]) for engine in PREPARED}
    for what, size in CASES.items():
        photo = picture(*size)
        if photo.samples.size < 10**6:  # what is compiled for a size once; nothing beside a large photo
            made = {engine: enlarger(photo).samples.astype(int) for engine, enlarger in enlargers.items()}
            assert all(np.abs(one - made["torch"]).max() <= 1 for one in made.values())
        more = 1 if size[0] > 1000 else 5
        yield {"what": what, **in_turns({name: partial(e, photo) for name, e in enlargers.items()}, more * rounds)}


def commands(model: str, threads: int, rounds: int) -> Iterable[Row]:
    """The whole command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(engine: str, photo: Path) -> None:
            words = [f"input={photo}", f"output={folder / 'out.png'}", f"model={model}", "overwrite=true"]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
            line = [sys.executable, str(DOOR), *words, f"scale={SCALE}", f"engine={engine}"]
            subprocess.run(line, check=True, env=environment, stdout=subprocess.DEVNULL, cwd=folder)

        for what, size in CASES.items():
            photo = folder / "photo.png"
            Image.fromarray(picture(*size).samples.squeeze()).save(photo)
            yield {"what": what, **in_turns({engine: partial(run, engine, photo) for engine in ENGINES}, rounds)}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    load_before = round(os.getloadavg()[0], 1)
    keep_freed()  # as upscale.py does; all contestants have it
    tables: dict[str, list[Row]] = {"in memory": [], "the whole command": []}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for model in MODELS:
            for table, rows in (
                ("in memory", in_memory(model, rounds)),
                ("the whole command", commands(model, threads, rounds)),
            ):
                for row in rows:
                    tables[table].append({"model": model, "threads": threads, **row})
                    print(table, tables[table][-1], flush=True)
    versions = {package: version(package) for package in ("torch", "openvino", "onnxruntime")}
    machine = {**versions, "on": platform.machine(), "load before": load_before, "rounds": rounds}
    (HERE / "engines.json").write_text(json.dumps({"machine": machine, **tables}, indent=1) + "\n", encoding="utf-8")
    (HERE / "engines.md").write_text(page(machine, tables), encoding="utf-8")


def page(machine: Mapping[str, object], tables: dict[str, list[Row]]) -> str:
    """The figures as Markdown."""
    lines = [
        "# Engines that enlarge photos",
        "",
        f"Median milliseconds of engines in turns, x{SCALE}, weights as shipped.",
        f"Made by `python benchmarks/engines.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
    ]
    for title, rows in tables.items():
        head = list(rows[0])
        lines += ["", f"## {title.capitalize()}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
