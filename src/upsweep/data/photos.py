"""The colour photos inside scikit-image's wheel: a data set that is there after the install."""

from importlib.util import find_spec
from pathlib import Path

from upsweep.common.errors import UserError

# A fixed split with no scene on both sides (the motorcycle is a stereo pair).
TRAIN = (
    "astronaut.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
)
VAL = ("chelsea.png", "coffee.png", "rocket.jpg")


def photo_files(names: tuple[str, ...]) -> dict[str, Path]:
    """The photos' files by name, found without importing scikit-image; UserError where that is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise UserError("data=photos reads scikit-image's photos, but it is not installed: pip install -e .")
    folder = Path(package.origin).parent / "data"
    return {name: folder / name for name in names}
