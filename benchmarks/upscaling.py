"""How fast a photo is enlarged: ours against OpenCV's bicubic and OpenCV's own engine for networks.

    python benchmarks/upscaling.py [FSRCNN_x2.pb]

Run it on a quiet machine. It needs opencv-contrib-python-headless and onnx, which the project does not. Everything
takes 8-bit colour and gives 8-bit colour, from memory to memory: luma through the network, chroma by bicubic. The
contestants take turns in one process, with the same number of threads. With the path of OpenCV's own FSRCNN for
`dnn_superres` (the size of ours) that takes part; without it OpenCV's engine runs the very network that we ship, around
which everything is done as `dnn_superres` does it. Writes upscaling.json and upscaling.md beside itself.
"""

import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import cv2
import numpy as np
import onnx
import skimage.data
import torch
from numpy.typing import NDArray

from upsweep import release
from upsweep.common.memory import keep_freed
from upsweep.imaging.files import Picture
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.upscaling.picture import Enlarger

HERE = Path(__file__).resolve().parent
SCALE = 2
CASES = {"to 1280x720": (360, 640, 15), "a photo of 12 megapixels, to 48": (3000, 4000, 3)}  # height, width, rounds
Photo = NDArray[np.uint8]
Contestant = Callable[[Photo], Photo]


def ours(generator: Upscaler) -> Contestant:
    """What src/upscale.py does between reading and writing a file."""
    upscaler = Enlarger(generator)
    return lambda photo: np.asarray(upscaler(Picture(photo)).pixels, np.uint8)


def bicubic(photo: Photo) -> Photo:
    """OpenCV's."""
    height, width, _ = photo.shape
    return np.asarray(cv2.resize(photo, (SCALE * width, SCALE * height), interpolation=cv2.INTER_CUBIC), np.uint8)


def opencvs_engine(generator: Upscaler, height: int, width: int) -> Contestant:
    """The same network in OpenCV's engine, for photos of one size."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "network.onnx"
        torch.onnx.export(generator, (torch.rand(1, 1, height, width),), file, dynamo=True, external_data=False)
        onnx.checker.check_model(onnx.load(file))
        network = cv2.dnn.readNetFromONNX(str(file))

    def enlarge(photo: Photo) -> Photo:
        luma, *chroma = cv2.split(cv2.cvtColor(photo, cv2.COLOR_RGB2YCrCb))
        network.setInput(cv2.dnn.blobFromImage(luma, 1 / 255))
        made = np.clip(np.rint(255 * network.forward()[0, 0]), 0, 255).astype(np.uint8)
        others = [bicubic(plane[..., None]) for plane in chroma]
        return np.asarray(cv2.cvtColor(cv2.merge([made, *others]), cv2.COLOR_YCrCb2RGB), np.uint8)

    return enlarge


def dnn_superres(model: str) -> Contestant:
    """OpenCV's own, with a model of its own; it wants BGR, which costs ours nothing here."""
    network = cv2.dnn_superres.DnnSuperResImpl_create()
    network.readModel(model)
    network.setModel("fsrcnn", SCALE)
    return lambda photo: np.asarray(network.upsample(photo), np.uint8)


def compare(height: int, width: int, rounds: int, model: str | None) -> dict[str, list[float]]:
    """Seconds of every contestant, round by round."""
    generator = load_upscaler(release.path("fsrcnn", SCALE))
    photo = cv2.resize(skimage.data.astronaut(), (width, height), interpolation=cv2.INTER_CUBIC)
    opencv = dnn_superres(model) if model else opencvs_engine(generator, height, width)
    contestants: dict[str, Contestant] = {"ours": ours(generator), "bicubic": bicubic, "OpenCV's FSRCNN": opencv}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            began = time.perf_counter()
            made = contestant(photo)
            seconds[name].append(time.perf_counter() - began)
            assert made.shape == (SCALE * height, SCALE * width, 3)
            if turn == 0:  # warms up, and shows that all enlarge the same photo
                error = np.abs(made.astype(int) - bicubic(photo)).mean()
                assert error < 5, f"{name} differs from bicubic by {error:.1f} levels in the mean"
    return {name: times[1:] for name, times in seconds.items()}


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else None
    figures: list[dict[str, Any]] = []
    load = round(os.getloadavg()[0], 1)
    keep_freed()  # as upscale.py does; all contestants have it
    for threads in (1, 2):
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        for what, (height, width, rounds) in CASES.items():
            seconds = compare(height, width, rounds, model)
            ratios = [theirs / own for theirs, own in zip(seconds["OpenCV's FSRCNN"], seconds["ours"], strict=True)]
            low, _, high = quantiles(ratios, n=4) if len(ratios) > 3 else (min(ratios), 0.0, max(ratios))
            ms = {name: round(1000 * median(times), 1) for name, times in seconds.items()}
            faster = {"ratio": round(median(ratios), 2), "low": round(low, 2), "high": round(high, 2)}
            figures.append({"what": what, "threads": threads, "ms": ms, "OpenCV / ours": faster})
            print(what, threads, ms, faster, flush=True)
    machine = {"torch": torch.__version__, "opencv": cv2.__version__, "on": platform.machine(), "load before": load}
    opponent = "OpenCV's dnn_superres with its own FSRCNN" if model else "the same network in OpenCV's engine"
    record = {"opponent": opponent, "machine": machine, "figures": figures}
    (HERE / "upscaling.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [
        "# Enlarging a photo",
        "",
        f"FSRCNN x{SCALE} as shipped, 8-bit colour in and out, in memory; median milliseconds of alternating rounds.",
        f"The opponent is {opponent}; the last column is its time over ours.",
        f"Made by `python benchmarks/upscaling.py`: {', '.join(f'{k} {v}' for k, v in machine.items())}.",
        "",
        "| what | threads | ours | OpenCV's bicubic | OpenCV's FSRCNN | OpenCV / ours |",
        "|---|---|---|---|---|---|",
        *(
            f"| {f['what']} | {f['threads']} | {f['ms']['ours']} | {f['ms']['bicubic']} | {f['ms'][NETWORK]} "
            f"| {f[RATIO]['ratio']} ({f[RATIO]['low']} to {f[RATIO]['high']}) |"
            for f in figures
        ),
    ]
    (HERE / "upscaling.md").write_text("\n".join(lines) + "\n")


NETWORK, RATIO = "OpenCV's FSRCNN", "OpenCV / ours"

if __name__ == "__main__":
    main()
