"""Images that upsweep made are not used as data: a network would learn from, and be judged by, a network's output."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import IO, TypeVar

from upsweep.common.names import MOST_NAMED, listed
from upsweep.common.ranks import first_rank
from upsweep.common.words import warn_once
from upsweep.imaging.marks import made_here

P = TypeVar("P", bound=PurePath)


def _opened(path: PurePath) -> IO[bytes]:
    return Path(path).open("rb")


def foreign(files: Iterable[P], where: Path, opened: Callable[[P], IO[bytes]] = _opened) -> list[P]:
    """The image files that upsweep did not make; one line says how many others `where` holds.

    Args:
        files: all images of a folder or an archive.
        where: that.
        opened: opens one of them.
    """
    known = [*files]
    ours = set(made_here(known, opened))
    if ours and first_rank(os.environ):
        warn_once(sentence([path.name for path in known if path in ours], where))
    return [path for path in known if path not in ours]


def sentence(names: list[str], where: Path) -> str:
    """The message on images that are left out.

    >>> sentence(["a_x2.png", "b_x2.png"], Path("photos"))
    '2 images that upsweep made were left out of photos: a_x2.png, b_x2.png.'
    """
    images = "1 image that upsweep made was" if len(names) == 1 else f"{len(names)} images that upsweep made were"
    return f"{images} left out of {where}: {listed(names)}{'' if len(names) > MOST_NAMED else '.'}"
