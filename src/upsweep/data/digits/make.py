"""Pick the shipped digits out of MNIST: python -m upsweep.data.digits.make FOLDER_OF_MNIST."""

import gzip
import lzma
import sys
from pathlib import Path

import numpy as np

from upsweep.common.files import write_whole

HERE = Path(__file__).parent
PARTS = {"train": ("train", 500), "validation": ("t10k", 100)}  # part: its file in MNIST, digits of each class


def pick(folder: Path) -> None:
    """Write the first digits of each class, in the order of MNIST's files."""
    for part, (source, count) in PARTS.items():
        images, labels = (
            gzip.decompress((folder / f"{source}-{kind}-ubyte.gz").read_bytes())
            for kind in ("images-idx3", "labels-idx1")
        )
        classes = np.frombuffer(labels, np.uint8, offset=8)
        rows = np.sort(np.concatenate([np.flatnonzero(classes == digit)[:count] for digit in range(10)]))
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)[rows]
        number = len(rows).to_bytes(4)
        write_whole(HERE / f"{part}-images-idx3-ubyte.xz", _packed(images[:4] + number + images[8:16], pixels))
        write_whole(HERE / f"{part}-labels-idx1-ubyte.xz", _packed(labels[:4] + number, classes[rows]))


def _packed(header: bytes, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return lzma.compress(header + values.tobytes(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    pick(Path(sys.argv[1]))
