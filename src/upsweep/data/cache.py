"""Prepared images on the disk: a folder for every set of files and settings, whole or not there.

The key is a hash of the files (path, size, times), the settings and the format's version, so changed files or settings
give another folder. A folder appears by one rename when it is whole. A lock lets the second of two processes wait for
the first instead of doing the same work; correctness rests on the rename alone.
"""

import hashlib
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError
from upsweep.common.files import remove_leftovers, whole
from upsweep.common.locks import locked
from upsweep.common.progress import Bar
from upsweep.imaging.files import Picture

log = logging.getLogger("upsweep")

BLOCK = 16 << 20  # bytes
PROGRESS_AFTER = 2.0  # seconds
PIXELS, INDEX = "pixels.bin", "index.json"

Made = TypeVar("Made")


def cached(cache_dir: Path, key: str, read: Callable[[Path], Made | None], write: Callable[[Path], None]) -> Made:
    """What `read` gives for the cache's folder; if that is None, `write` makes the content first.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_dir / key
    if (opened := read(folder)) is None:
        try:
            with locked(cache_dir / f"{key}.lock"):
                if (opened := read(folder)) is None:
                    _write(folder, write)
                    opened = read(folder)
        except OSError as error:
            what = full_disk(error, cache_dir) or f"The cache in {cache_dir} cannot be written ({error})"
            how = "choose another folder with data.cache_dir=PATH, or do without a cache (data.cache=none)"
            raise UserError(f"{what}: {how}.") from error
    if opened is None:
        raise UserError(f"The cache {folder} changed while it was being opened: delete it and start again.")
    return opened


def _write(folder: Path, write: Callable[[Path], None]) -> None:
    remove_leftovers(folder.parent, folder.name)
    with whole(folder) as part:
        part.mkdir()
        write(part)
        if folder.exists():
            log.warning("The cache %s was damaged: it is made again.", folder)
            shutil.rmtree(folder, ignore_errors=True)


def key_of(*said: Any) -> str:
    """A name for exactly these plain values."""
    return hashlib.sha256(json.dumps(said).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def stamp(path: Path) -> tuple[int, int, int]:
    """Size and times; the change time also sees a repaired permission and a replacement with an old date."""
    try:
        stat = path.stat()
    except OSError:  # whoever reads the file will say what is wrong with it
        return (0, 0, 0)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def digests_of(file: Path) -> list[int]:
    """A CRC-32 of every block of a file, so that no change to a cache goes unseen."""
    with file.open("rb", buffering=0) as pixels:
        return [zlib.crc32(block) for block in iter(partial(pixels.read, BLOCK), b"")]


def digest_of(*pictures: Picture | None) -> str:
    """Of pixels and their shapes: 16 hexadecimal digits."""
    found = hashlib.blake2b(digest_size=8)
    for picture in filter(None, pictures):
        found.update(repr((picture.pixels.shape, picture.pixels.dtype.str)).encode())
        found.update(np.ascontiguousarray(picture.pixels).data)
    return found.hexdigest()


def each(names: Sequence[str], make: Callable[[str], Made], refused: dict[str, str]) -> Iterator[Made]:
    """What `make` gives of every name, made on as many threads as torch may use, in the order of the names.

    The names for which it raises UserError go to `refused`, with the reason.
    """

    import torch  # who only looks for files does without

    def attempt(name: str) -> Made | UserError:
        try:
            return make(name)
        except UserError as error:
            return error

    threads = torch.get_num_threads()
    window = 4 * threads  # bounds what is decoded and not yet written
    with ExitStack() as stack:
        # one torch thread in each worker: the images are the parallelism
        stack.callback(torch.set_num_threads, threads)
        pool = stack.enter_context(ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)))
        bar = stack.enter_context(Bar(len(names), "preparing images", after=PROGRESS_AFTER, lines=False))
        for some in (names[first : first + window] for first in range(0, len(names), window)):
            for name, result in zip(some, pool.map(attempt, some), strict=True):
                if isinstance(result, UserError):
                    refused[name] = str(result)
                else:
                    yield result
                bar.advance()
