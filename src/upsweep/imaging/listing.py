"""Which files of a folder are images."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from upsweep.common.errors import UserError
from upsweep.common.names import listed

SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".pjpeg", ".pjp"),
    }
)


def find_images(folder: Path, *, deep: bool = True) -> list[Path]:
    """List the image files (by suffix) in a folder and, if `deep`, below it, as `files_below` does."""
    return list(filter(is_image, files_below(folder, deep=deep)))


def is_image(path: PurePath) -> bool:
    """Whether a file is one that `read_image` reads, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def passed_over(files: Iterable[Path]) -> list[str]:
    """A sentence on the files that are no images that can be read, if there are any: a folder of HEIC is not empty."""
    others = [file.name for file in files if not is_image(file)]
    count = "1 file is" if len(others) == 1 else f"{len(others)} files are"
    return [f"{count} passed over (not PNG, JPEG, BMP, TIFF or WebP): {listed(others)}."] if others else []


def files_below(folder: Path, *, deep: bool = True) -> list[Path]:
    """List all files in a folder and, if `deep`, below it, sorted, without the hidden ones.

    Links to folders are followed, each folder once: a loop ends, and no file comes twice.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    found: list[Path] = []
    known: set[str] = set()
    waiting = [folder]
    while waiting:  # folders first, then those that links lead to
        links: list[Path] = []
        for top, folders, names in os.walk(waiting.pop(0)):
            here, real = Path(top), os.path.realpath(top)
            folders[:] = [name for name in folders if deep and real not in known and not name.startswith(".")]
            if real not in known:
                known.add(real)
                links += (here / name for name in folders if (here / name).is_symlink())
                found += (here / name for name in names if not name.startswith(".") and (here / name).is_file())
        waiting += sorted(links)
    return sorted(found)
