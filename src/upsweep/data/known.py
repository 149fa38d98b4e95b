"""The data sets of the field by name, and where they lie below a folder of data sets (the root).

The root is `data.root` or the environment variable UPSWEEP_DATA. In it a set is looked for in the layouts in
circulation (`Set5/HR/baby.png`, `benchmark/Set5/original/...`, `DIV2K/DIV2K_train_HR/0001.png`, `T91/t1.png`, ...),
whatever their capitals; the root may be the set itself. Only folders that hold HR images are ever looked into.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.common.words import warn_once

ENVIRONMENT = "UPSWEEP_DATA"
# Where the folder of a set lies below the root, and where in it the HR images lie: the least cropped ones first.
PARENTS = ("", "benchmarks", "benchmark", "train", "training", "test", "val", "valid")
HR_FOLDERS = ("original", "HR", "GT", "GTmod12", "GTmod24", "image_SRF_2", "image_SRF_4", "image_SRF_3", "")


@dataclass(frozen=True)
class ImageSet:
    """A set of HR images as it was published.

    Attributes:
        title: as papers write it.
        count: of its images.
        folders: its folder goes by one of these names; the first is the one that `src/fetch.py` uses.
    """

    title: str
    count: int
    folders: tuple[str, ...]


def _berkeley(split: str) -> tuple[str, ...]:
    return tuple(f"{base}/{split}" for base in ("BSDS500/data/images", "BSR/BSDS500/data/images", "BSDS500/images"))


SETS = {
    "t91": ImageSet("T91", 91, ("T91", "91-image", "91", "Train_91")),
    "bsd200": ImageSet("BSD200", 200, ("BSD200", "BSDS200", "B200", *_berkeley("train"), "BSDS300/images/train")),
    "bsds500_test": ImageSet("BSDS500-test", 200, ("BSDS500-test", "BSDS500_test", *_berkeley("test"))),
    "div2k": ImageSet("DIV2K", 800, ("DIV2K/DIV2K_train_HR", "DIV2K_train_HR", "DIV2K/train/HR", "DIV2K/HR")),
    "div2k_valid": ImageSet("DIV2K valid", 100, ("DIV2K/DIV2K_valid_HR", "DIV2K_valid_HR", "DIV2K/valid/HR")),
    "flickr2k": ImageSet("Flickr2K", 2650, ("Flickr2K/Flickr2K_HR", "Flickr2K_HR", "Flickr2K")),
    "free": ImageSet("Free", 65, ("Free",)),
    "kodak24": ImageSet("Kodak24", 24, ("Kodak24", "Kodak", "kodim")),
    "set5": ImageSet("Set5", 5, ("Set5",)),
    "set14": ImageSet("Set14", 14, ("Set14",)),
    "bsd100": ImageSet("BSD100", 100, ("BSD100", "B100", "BSDS100", *_berkeley("val"), "BSDS300/images/test")),
    "urban100": ImageSet("Urban100", 100, ("Urban100",)),
    "manga109": ImageSet("Manga109", 109, ("Manga109",)),
}
BENCHMARKS = ("set5", "set14", "bsd100", "urban100", "manga109")
# What can be trained on, and the sets it is made of.
TRAINING = {
    "t91": ("t91",),
    "bsd200": ("bsd200",),
    "t91_bsd200": ("t91", "bsd200"),
    "div2k": ("div2k",),
    "df2k": ("div2k", "flickr2k"),
    "mixed": ("t91", "bsd200", "bsds500_test", "free"),
    **{name: (name,) for name in ("bsds500_test", "free", "kodak24", "div2k_valid", "flickr2k")},
}


def data_root(root: Path | str | None, *, make: bool = False) -> Path:
    """The folder of data sets: `root`, or what UPSWEEP_DATA names; with `make` it is made where it is missing.

    Raises:
        UserError: neither is set, or there is no such folder and none can be made.
    """
    said = str(root) if root is not None else os.environ.get(ENVIRONMENT)
    if not said:
        raise UserError(f"The folder of the data sets is not set: set data.root=PATH or the variable {ENVIRONMENT}.")
    folder = Path(said).expanduser()
    try:
        if make:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {said} cannot be made ({error.strerror}): set data.root=PATH.") from error
    if not folder.is_dir():
        raise UserError(f"{'data.root' if root is not None else ENVIRONMENT}={said} is not a folder.")
    return folder


def benchmark_files(name: str, root: Path | None) -> list[Path]:
    """The HR files of a benchmark, sorted.

    Raises:
        UserError: the name is not one of BENCHMARKS, no root is set, or the set is not there.
    """
    if name not in BENCHMARKS:
        raise UserError(f"There is no benchmark {name}; choose from {', '.join(BENCHMARKS)}.")
    return _files(name, data_root(root))


def present_benchmarks(root: Path | None) -> list[str]:
    """The benchmarks whose folder is below the root, in the order of the papers; UserError where no root is set."""
    folder = data_root(root)
    return [name for name in BENCHMARKS if find(name, folder)]


def benchmark_in(folder: Path) -> tuple[str, list[Path]] | None:
    """The benchmark that a folder is by its name, and its HR files, sorted; None where it is none, or has no files."""
    named = (name for name in BENCHMARKS if _bears(SETS[name], folder))
    return next(((name, files) for name in named if (files := present(name, folder))), None)


def training_files(name: str, root: Path | None) -> list[Path]:
    """The HR files of a training set, sorted within each set that it is made of.

    Raises:
        UserError: the name is not one of TRAINING, no root is set, or a set is not there.
    """
    if name not in TRAINING:
        raise UserError(f"There is no training set {name}; choose from {', '.join(TRAINING)}.")
    folder = data_root(root)
    return [file for part in TRAINING[name] for file in _files(part, folder)]


def find(name: str, root: Path) -> list[Path]:
    """The HR files of the set `name` below an existing root, sorted; none where the set has no folder there."""
    for folder in _folders(SETS[name], root):
        for inner in HR_FOLDERS:
            if (hr := descend(folder, Path(inner))) and (files := _hr_images(hr)):
                return files
    return []


def present(name: str, root: Path) -> list[Path]:
    """As `find`; a warning says where there are more or fewer images than were published."""
    own, files = SETS[name], find(name, root)
    if files and len(files) != own.count:
        warn_once(f"{own.title} has {own.count} images, this copy has {len(files)} ({files[0].parent}).")
    return files


def descend(folder: Path, path: Path) -> Path | None:
    """`folder/path` below an existing folder, whatever its capitals; None where there is no such folder."""
    for part in path.parts:
        alike = [child for child in folder.iterdir() if child.name.casefold() == part.casefold() and child.is_dir()]
        if not alike:
            return None
        folder = min(alike, key=lambda child: (child.name != part, child))  # the exact name before others
    return folder


def _unnamed(image_set: ImageSet, root: Path) -> list[Path]:
    """The images of a root without a set's name, if there are as many as the set has."""
    own = {part.casefold() for part in root.resolve().parts[-2:]}
    names = {name.casefold() for one in SETS.values() for name in one.folders}
    files = [] if own & names else _hr_images(root)
    return files if len(files) == image_set.count else []


def _files(name: str, root: Path) -> list[Path]:
    own = SETS[name]
    files = present(name, root) or _unnamed(own, root)
    if not files:
        usual = ", ".join(f"{root / folder}" for folder in own.folders[:2])
        raise UserError(
            f"{own.title} was not found: no images in {usual} or the like (docs/data.md lists the layouts); "
            f"set data.root or {ENVIRONMENT} to the folder that has it, or try {command('fetch', f'data={name}')}."
        )
    return files


def _folders(image_set: ImageSet, root: Path) -> Iterator[Path]:
    """The folders below the root, or the root itself, with one of the set's names."""
    for name in image_set.folders:
        for parent in PARENTS:
            if folder := descend(root, Path(parent, name)):
                yield folder
    if _bears(image_set, root):
        yield root


def _bears(image_set: ImageSet, folder: Path) -> bool:
    """Whether a folder, or the one above its HR images, has one of the set's names."""
    own = folder.resolve()
    if own.name.casefold() in {name.casefold() for name in HR_FOLDERS}:  # .../Set5/HR
        own = own.parent
    return own.as_posix().casefold().endswith(tuple(f"/{name.casefold()}" for name in image_set.folders))


def _hr_images(folder: Path) -> list[Path]:
    """The image files in a folder that upsweep did not make; where some are marked as HR (`img_001_SRF_2_HR.png`),
    those, and no LR ones."""
    from upsweep.data.foreign import foreign
    from upsweep.imaging.listing import find_images  # a door asks for the names alone

    files = foreign(find_images(folder, deep=False), folder)
    marked = [path for path in files if re.search(r"[_-](HR|GT)$", path.stem, re.IGNORECASE)]
    return marked or [path for path in files if not re.search(r"[_-](LR|bicubic)", path.stem, re.IGNORECASE)]
