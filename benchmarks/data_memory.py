"""The private memory in which a training goes through a cache of 10 GB: at most 1.5 GB.

    python benchmarks/data_memory.py

The cache is sparse: its files are all holes, so that it takes no room on the disk, but whatever is read of it is mapped
like any other page. The door finds it as it finds a cache of its own making. Private is USS (psutil), the largest of
many looks at the training's process: a page of the cache counts as long as the process keeps it mapped. Writes
data_memory.json beside itself; `--into FOLDER` writes it there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from upsweep.data import cache as cache_files
from upsweep.data import store
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image

HERE = Path(__file__).resolve().parent
HEIGHT, WIDTH, SCALE = 1356, 2040, 2  # the usual photo of DIV2K
BYTES = 10 * 10**9
PATCHES = 1600


@dataclass(frozen=True)
class Measured:
    cache_bytes: int
    largest_private_bytes: int
    largest_resident_bytes: int
    patches: int
    looks: int
    bound_bytes: int = 1_500_000_000

    @property
    def within(self) -> bool:
        return self.largest_private_bytes <= self.bound_bytes


def sparse_cache(images: Path, cache: Path) -> int:
    """A cache of BYTES at least for as many empty image files, as `store` would have made it; its size."""
    hr, lr = 3 * HEIGHT * WIDTH, 4 * 3 * (HEIGHT // SCALE) * (WIDTH // SCALE)
    count = -(-BYTES // (hr + lr))
    entries = []
    images.mkdir()
    for number in range(count):
        (images / f"{number:04}.png").touch()
        at = number * (hr + lr)
        places = {"hr": [at, 3, HEIGHT, WIDTH], "lr": [at + hr, 3, HEIGHT // SCALE, WIDTH // SCALE]}
        entries.append({"name": f"{number:04}.png", **places, "rgb_hr": None, "rgb_lr": None, "digest": ""})
    settings = store.Settings(SCALE, 3, colour=False)
    pairs: store.Pairs = {path.name: (path, None) for path in sorted(images.iterdir())}
    folder = cache / store._key(pairs, settings)
    folder.mkdir(parents=True)
    size = count * (hr + lr)
    (folder / cache_files.PIXELS).touch()
    os.truncate(folder / cache_files.PIXELS, size)
    (folder / cache_files.INDEX).write_text(
        json.dumps({"digests": cache_files.digests_of(folder / cache_files.PIXELS), "images": entries, "refused": {}})
    )
    return size


def measure(folder: Path) -> Measured:
    """Train on such a cache below `folder` by the door, and look at its memory."""
    size = sparse_cache(folder / "images", folder / "cache")
    (folder / "val").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    write_image(folder / "val" / "0.png", Picture(pixels), marked=False)
    command = [
        *(sys.executable, str(HERE.parent / "src" / "train.py"), f"hydra.run.dir={folder}/run", "logger=none"),
        *("data=folder", f"data.root={folder}/images", f"data.val_root={folder}/val", f"data.cache_dir={folder}/cache"),
        *("data.patch_size=48", f"data.patches_per_epoch={PATCHES}", "trainer=cpu", "trainer.max_epochs=1"),
        *("generator.channels=3", "generator.width=4", "generator.depth=1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    watched, private, resident, looks = psutil.Process(process.pid), 0, 0, 0
    while process.poll() is None:
        try:
            memory = watched.memory_full_info()
        except psutil.Error:  # it has just ended
            break
        private, resident, looks = max(private, memory.uss), max(resident, memory.rss), looks + 1
        time.sleep(0.3)
    said = process.communicate()[0]
    if process.returncode:
        sys.exit(said)
    return Measured(size, private, resident, PATCHES, looks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=HERE)
    into: Path = parser.parse_args().into
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    text = json.dumps({**asdict(found), "within": found.within}, indent=2)
    (into / "data_memory.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
