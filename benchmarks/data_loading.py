"""How fast patches come from the cache, against decoding the files of each sample, and what a training waits for them.

    UPSWEEP_DATA=... OMP_NUM_THREADS=1 python benchmarks/data_loading.py

BSD200 is stored as PNG, and its LR too, in a temporary folder. Both ways make the same batches of the same crops in one
process, in turns, so that whatever else the machine does meets both; a figure is the median over the rounds of the
ratio. The wait is the share of (wait + step) that a bare training loop spends in `next(batches)`; with Lightning
around it the steps are longer and the share is smaller. A batch of images for generation is timed by itself. Writes
data_loading.json and data_loading.md beside itself.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor

from upsweep.data.degradation import BICUBIC, stream
from upsweep.data.known import training_files
from upsweep.data.sources import Digits, Folder
from upsweep.imaging.files import Picture, read_image, to_tensor, to_uint8
from upsweep.imaging.resize import crop_to_multiple
from upsweep.imaging.writing import write_image
from upsweep.tasks.generation.data import ImageData
from upsweep.tasks.super_resolution.data import PatchData
from upsweep.tasks.super_resolution.patches import Patch, TrainPatches, place_of, turned

SCALE, PATCH, BATCH = 2, 48, 16
ROUNDS, CACHED, DECODED = 15, 60, 6  # batches a round
STEPS, WARM_UP = 150, 10
CONF = Path(__file__).resolve().parent.parent / "conf"


def as_png(folder: Path) -> None:
    """BSD200 and its LR (uint8) as PNG."""

    def convert(path: Path) -> None:
        picture = read_image(path)
        write_image(folder / "hr" / f"{path.stem}.png", picture, marked=False)
        hr = crop_to_multiple(to_tensor(picture.pixels), SCALE)
        lr = to_uint8(BICUBIC(hr, SCALE, stream(0, 0, 0)))
        write_image(folder / "lr" / f"{path.stem}.png", Picture(lr), marked=False)

    for name in ("hr", "lr"):
        (folder / name).mkdir()
    with ThreadPoolExecutor() as pool:
        list(pool.map(convert, training_files("bsd200", None)))


def data_of(folder: Path, channels: int, patch: int) -> PatchData:
    data = PatchData(
        source=Folder(root=str(folder / "hr")),
        scale=SCALE,
        channels=channels,
        seed=1,
        patch_size=patch,
        batch_size=BATCH,
        cache_dir=str(folder / "cache"),
        patches_per_epoch=10**7,
    )
    data.setup()
    return data


def decoding(patches: TrainPatches, folder: Path) -> Iterator[Patch]:
    """The same batches, each sample decoded from its two files by Pillow and cut."""
    p, s = patches.patch_size, SCALE

    def pixels(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1)

    def tensor(crop: np.ndarray, turn: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(turned(crop, turn))).float().div_(255)

    index = 0
    while True:
        samples = []
        for _ in range(BATCH):
            image, top, left, turn = place_of(patches.seed, 0, index, patches.sizes, patches.ends, p)
            name, index = patches.images[image].name, index + 1
            hr, lr = pixels(folder / "hr" / name), pixels(folder / "lr" / name)
            y, x = top * s, left * s
            samples.append(
                (tensor(lr[:, top : top + p, left : left + p], turn), tensor(hr[:, y : y + p * s, x : x + p * s], turn))
            )
        yield Patch(*(torch.stack(part) for part in zip(*samples, strict=True)))


def rate(batches: Iterator[Patch], count: int) -> float:
    """Patches a second."""
    start = time.perf_counter()
    for _ in islice(batches, count):
        pass
    return count * BATCH / (time.perf_counter() - start)


def speed(folder: Path) -> dict[str, float]:
    data = data_of(folder, channels=3, patch=PATCH)
    loader = data.train_dataloader()
    cached, decoded = iter(loader), decoding(loader.dataset, folder)  # type: ignore[arg-type]
    ours, theirs = next(cached), next(decoded)
    if not torch.equal(ours.hr, theirs.hr) or (ours.lr.clamp(0, 1) - theirs.lr).abs().max() > 0.51 / 255:
        raise SystemExit("the two ways do not make the same batches")
    rates: dict[str, list[float]] = {"cached": [], "decoded": []}
    for _ in range(ROUNDS):
        rates["cached"].append(rate(cached, CACHED))
        rates["decoded"].append(rate(decoded, DECODED))
    ratios = [fast / slow for fast, slow in zip(rates["cached"], rates["decoded"], strict=True)]
    low, _, high = quantiles(ratios, n=4)
    return {
        "cached_patches_per_second": median(rates["cached"]),
        "decoded_patches_per_second": median(rates["decoded"]),
        "ratio": median(ratios),
        "low": low,
        "high": high,
        "bound": 10.0,
    }


def wait(folder: Path, name: str, channels: int, patch: int) -> dict[str, Any]:
    """The share of a training step that is spent waiting for its batch."""
    overrides = [f"generator={name}", f"scale={SCALE}", f"generator.channels={channels}"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides)
    torch.manual_seed(0)
    network = instantiate(cfg.generator, _convert_="all")
    objective = instantiate(cfg.objective, _convert_="all")
    optimizer = torch.optim.Adam(network.parameters())
    batches = iter(data_of(folder, channels, patch).train_dataloader())
    waits, shares = [], []
    for step in range(WARM_UP + STEPS):
        start = time.perf_counter()
        batch = next(batches)
        middle = time.perf_counter()
        optimizer.zero_grad()
        objective(network(batch.lr), batch.hr).backward()
        optimizer.step()
        end = time.perf_counter()
        if step >= WARM_UP:
            waits.append(middle - start)
            shares.append((middle - start) / (end - start))
    return {
        "generator": name,
        "channels": channels,
        "patch": patch,
        "wait_ms": 1000 * median(waits),
        "share": median(shares),
        "bound": 0.05,
    }


def images(folder: Path) -> dict[str, float]:
    """Milliseconds that a batch of 64 digits takes, 28x28 each, over an epoch."""
    data = ImageData(
        source=Digits(), size=28, channels=1, latent=64, seed=1, batch_size=64, cache_dir=str(folder / "cache")
    )
    data.setup()
    batches, taken = iter(data.train_dataloader()), []
    while True:
        start = time.perf_counter()
        if next(batches, None) is None:
            break
        taken.append(time.perf_counter() - start)
    return {"batch_ms": 1000 * median(taken), "bound": 2.0}


def table(result: dict[str, Any]) -> str:
    fast = result["speed"]
    lines = [
        "# Patches from the cache",
        "",
        f"Made by `python benchmarks/data_loading.py`: {', '.join(f'{k} {v}' for k, v in result['machine'].items())}.",
        "",
        f"BSD200 as PNG, x{SCALE}, {PATCH}x{PATCH} LR, RGB, batch {BATCH}, one process, no workers: "
        f"{fast['cached_patches_per_second']:.0f} patches a second from the cache, "
        f"{fast['decoded_patches_per_second']:.0f} by decoding and cropping each sample: "
        f"**{fast['ratio']:.0f} times** ({fast['low']:.0f} to {fast['high']:.0f}; at least {fast['bound']:.0f}).",
        "",
        "| generator | LR patches | wait, ms a step | share of the step (at most 5 %) |",
        "|---|---|---|---|",
    ]
    for row in result["wait"]:
        what = f"{row['generator']} | {BATCH} x {row['channels']} x {row['patch']} x {row['patch']}"
        lines.append(f"| {what} | {row['wait_ms']:.2f} | {100 * row['share']:.1f} % |")
    digits = result["images"]
    lines += [
        "",
        f"A batch of 64 digits for generation takes {digits['batch_ms']:.2f} ms, "
        f"at most {digits['bound']:.0f}: 5 % of a step of 40 ms.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        as_png(folder)
        shapes = ((1, 20), (3, PATCH))
        result: dict[str, Any] = {
            "speed": speed(folder),
            "wait": [wait(folder, g, *shape) for g in ("deconvnet", "fsrcnn") for shape in shapes],
            "images": images(folder),
        }
    result["machine"] = {
        "torch": torch.__version__,
        "on": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load average at the end": round(os.getloadavg()[0], 1),
    }
    here = Path(__file__).with_suffix("")
    here.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    here.with_suffix(".md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
