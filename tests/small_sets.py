"""Small sets of images with classes, in the files that people have them in."""

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from upsweep.data.class_sets import CLASS_SETS


def idx(values: np.ndarray) -> bytes:
    """As the format is described at yann.lecun.com/exdb/mnist."""
    axes = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + axes + values.astype(np.uint8).tobytes()


def saved(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def digits(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def batch(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": rows, "labels": rng.integers(0, 10, count).tolist(), "batch_label": "training batch 1 of 5"}


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def as_idx(folder: Path, name: str = "mnist", suffix: str = ".gz", spelled: str = "-idx", test: bool = True) -> None:
    """Nine training images and eight test images of a set, as its first labels say."""
    first = CLASS_SETS[name].first or ((), ())
    for number, (part, labels) in enumerate(zip(NAMES, first, strict=True)):
        if test or part == "train":
            count = 9 - number
            classes = np.array([*labels, 3][:count])
            for file, values in zip(NAMES[part], (digits(count, seed=number), classes), strict=True):
                content = idx(values)
                path = folder / f"{file.replace('-idx', spelled)}{suffix}"
                saved(path, gzip.compress(content) if suffix else content)


def as_batches(folder: Path) -> None:
    for number in range(1, 6):
        saved(folder / f"data_batch_{number}", pickle.dumps(batch(2, seed=number)))
    saved(folder / "test_batch", pickle.dumps(batch(3)))


def as_pictures(folder: Path, training: str = "train", test: str = "test") -> None:
    for number in range(4):
        saved(folder / training / "cat" / f"{number}.png", png(digits(1, seed=number)[0]))
    saved(folder / test / "dog" / "0.png", png(digits(1)[0]))


def as_zip(file: Path, inside: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = png(digits(1)[0])
    zipped(file, **{f"{inside}train/cat/{n}.png": picture for n in range(4)}, **{f"{inside}test/dog/0.png": picture})
