"""Handwritten digits of MNIST that the package carries: 5,000 to train on, 1,000 to validate on; see README.md."""

from pathlib import Path
from typing import Literal

from upsweep.data.containers import Inside, idx_pictures

HERE = Path(__file__).parent


def digit_files(part: Literal["train", "validation"]) -> dict[str, Inside]:
    """The digits of a part, 28x28 and grey, by name, in the order of MNIST's files; as many of each class."""
    images, labels = (HERE / f"{part}-{kind}-ubyte.xz" for kind in ("images-idx3", "labels-idx1"))
    return {f"{part}/{number:04}": digit for number, digit in enumerate(idx_pictures(images, labels))}
