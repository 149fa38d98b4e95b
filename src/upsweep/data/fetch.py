"""Downloads of published data sets: fetched, checked, unpacked, and there as a whole or not at all.

Below the root, a download grows in `.<archive>.part`, and another process can continue it. Once it is whole and has the
published md5, it becomes `<archive>` and is unpacked into a hidden folder beside, which is then renamed. So a folder
with the name of a set is whole. A person who got the archive in another way puts it at `<root>/<archive>`.
"""

import gzip
import hashlib
import logging
import lzma
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO

import requests

from upsweep.common.errors import UserError
from upsweep.common.files import PART, remove_leftovers, whole
from upsweep.common.locks import locked
from upsweep.common.progress import Bar
from upsweep.data.known import SETS, TRAINING, find

log = logging.getLogger("upsweep")

TIMEOUT = 30.0  # seconds without a byte
TRIES = 4  # in a row that bring nothing
CHUNK = 1 << 16  # what a break may cost at most
MAX_FILES = 20_000
MAX_RATIO, MIN_BOUND = 10, 1 << 28  # unpacked bytes: at most ten times the archive, or 256 MiB

ALSO = {"div2k": ("div2k_valid",), "df2k": ("div2k_valid",)}  # what a training set is validated on


@dataclass(frozen=True)
class Archive:
    """A published archive: its address, the md5 of the file, and the folder that it becomes below the root.

    `most` bytes are taken of it, whatever its server gives: about twice what is published.
    """

    url: str
    md5: str
    folder: str
    most: int = 40 * 10**9

    @property
    def name(self) -> str:
        """The file's."""
        return self.url.rpartition("/")[2]


ETH, SNU = "http://data.vision.ee.ethz.ch/cvl/DIV2K", "https://cv.snu.ac.kr/research/EDSR"
BENCHMARK = Archive(f"{SNU}/benchmark.tar", "4ace41d33c2384b97e6b320cd0afd6ba", "benchmark", 2 * 10**9)
ARCHIVES = {  # by the name of the set that is in it
    "div2k": Archive(f"{ETH}/DIV2K_train_HR.zip", "bdc2d9338d4e574fe81bf7d158758658", "DIV2K_train_HR", 8 * 10**9),
    "div2k_valid": Archive(f"{ETH}/DIV2K_valid_HR.zip", "9fcdda83005c5e5997799b69f955ff88", "DIV2K_valid_HR", 10**9),
    "flickr2k": Archive(f"{SNU}/Flickr2K.tar", "5d3f39443d5e9489bff8963f8f26cb03", "Flickr2K"),
    **dict.fromkeys(("set5", "set14", "bsd100", "urban100"), BENCHMARK),
}

# Sets of images with classes: single files, into the folder; md5 as torchvision has them.
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
FASHION_MD5 = {
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}
OSSCI = "https://ossci-datasets.s3.amazonaws.com/mnist"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
TORONTO = "https://www.cs.toronto.edu/~kriz"
SINGLE = {
    "mnist": [Archive(f"{OSSCI}/{name}", md5, "MNIST/raw", 10**8) for name, md5 in MNIST_MD5.items()],
    "fashion_mnist": [
        Archive(f"{ZALANDO}/{name}", md5, "FashionMNIST/raw", 10**8) for name, md5 in FASHION_MD5.items()
    ],
}
CIFAR = Archive(
    f"{TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py", 4 * 10**8
)
CLASSED = (*SINGLE, "cifar10")


def archive_of(name: str, mirror: str | None = None) -> Archive | None:
    """Where a set is published; None if that is not known."""
    archive = ARCHIVES.get(name)
    return archive and _mirrored(archive, mirror)


def _mirrored(archive: Archive, mirror: str | None) -> Archive:
    return archive if mirror is None else replace(archive, url=f"{mirror.rstrip('/')}/{archive.name}")


def fetch(name: str, root: Path, *, mirror: str | None = None) -> None:
    """Put a training set or a benchmark below the root; a set that is there already is left alone.

    Args:
        name: of `upsweep.data.known`, or of CLASSED.
        root: an existing folder.
        mirror: the address of a folder with the same archives, instead of their own.

    Raises:
        UserError: the set has no known address, the server does not answer or gives another file, the
            archive is not to be trusted, there is no room, or a part of the set is in the way.
    """
    if name in CLASSED:
        _fetch_classes(name, root, mirror)
        return
    parts = (*TRAINING.get(name, (name,)), *ALSO.get(name, ()))
    if unknown := [part for part in parts if part not in SETS]:
        known = dict.fromkeys([*(n for n in TRAINING if set(TRAINING[n]) <= ARCHIVES.keys()), *ARCHIVES, *CLASSED])
        raise UserError(f"There is no data set {unknown[0]} to fetch; choose from {', '.join(known)}.")
    for part in parts:
        _fetch_part(part, root, mirror)


def _fetch_part(name: str, root: Path, mirror: str | None) -> None:
    title, count = SETS[name].title, SETS[name].count
    archive = archive_of(name, mirror)
    try:
        if _there(name, root):
            return
        if archive is None:
            raise UserError(
                f"upsweep knows no public address of {title}: get its {count} images yourself and put them into "
                f"{root / SETS[name].folders[0]}."
            )
        with locked(root / f".{archive.name}.lock"):
            if not _there(name, root):  # another process may have fetched it meanwhile
                fetch_archive(archive, root)
    except OSError as error:
        raise UserError(f"{title} cannot be put into {root} ({error.strerror or error}).") from error
    if not _there(name, root):
        raise UserError(f"{archive.url} was unpacked into {root / archive.folder}, but {title} is not in it.")


def _fetch_classes(name: str, root: Path, mirror: str | None) -> None:
    from upsweep.data.class_sets import CLASS_SETS, find_classes

    title = CLASS_SETS[name].title
    try:
        with locked(root / f".{name}.lock"):
            if all(find_classes(name, root) or [None]):  # both parts of it
                log.info("%s is in %s.", title, root)
            elif name in SINGLE:
                for file in SINGLE[name]:
                    _fetch_file(_mirrored(file, mirror), root)
            else:
                fetch_archive(_mirrored(CIFAR, mirror), root)
    except OSError as error:
        raise UserError(f"{title} cannot be put into {root} ({error.strerror or error}).") from error


def _fetch_file(file: Archive, root: Path) -> None:
    """Download a file as it is into its folder, unless it lies there already."""
    target = root / file.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() and _md5(target) == file.md5):
        _download(file, target)


def _there(name: str, root: Path) -> bool:
    """Whether the whole set is there; raises UserError if only a part is, which nothing here would leave."""
    title, count, found = SETS[name].title, SETS[name].count, find(name, root)
    if found and len(found) < count:
        raise UserError(f"{found[0].parent} holds {len(found)} of the {count} images of {title}: move it away first.")
    if found:
        log.info("%s is in %s.", title, found[0].parent)
    return bool(found)


def fetch_archive(archive: Archive, root: Path) -> None:
    """Download an archive, or take the one that lies there, and unpack it; raises as `fetch` does, or OSError."""
    target, file = root / archive.folder, root / archive.name
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{archive.name} unpacks to {target}, which already has files: move it away first.")
    by_hand = file.exists() and _md5(file) == archive.md5
    if by_hand:
        log.info("Using %s, which is there already.", file)
    else:
        _download(archive, file)
    remove_leftovers(target.parent, target.name)
    with whole(target) as beside:
        unpack(file, beside)
        inside = list(beside.iterdir())
        if len(inside) == 1 and inside[0].is_dir():  # the set's folder takes the place of the one around it
            only = inside[0].rename(beside.with_name(f"{beside.stem}-0{PART}"))
            beside.rmdir()
            only.rename(beside)
    if not by_hand:
        file.unlink()


class _Refused(Exception):
    """An archive has content that no data set has."""


# ---- download ----


def _download(archive: Archive, file: Path) -> None:
    """Download to `file`, continuing what an earlier process began."""
    part = file.with_name(f".{file.name}{PART}")
    advice = f"get {file.name} by hand (from there, or a mirror that you trust) and put it at {file}"
    for goes_on in (True, False) if part.exists() else (False,):
        try:
            _complete(archive, part)
        except requests.exceptions.RequestException as error:
            raise UserError(f"{archive.url} cannot be downloaded ({_reason(error)}): {advice}.") from error
        except _Refused as reason:
            part.unlink(missing_ok=True)
            raise UserError(f"{archive.url} sends {reason}; nothing was kept: {advice}.") from reason
        if _md5(part) == archive.md5:
            part.replace(file)
            return
        part.unlink()
        if goes_on:
            log.warning("The part of %s that was there is broken: the download starts again.", file.name)
    raise UserError(
        f"The file at {archive.url} is not the published {file.name} (md5 {archive.md5}), and was not kept: {advice}."
    )


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def _reason(error: requests.exceptions.RequestException) -> str:
    if error.response is not None:
        return f"it answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer in {TIMEOUT:g} s"
    return "no connection" if isinstance(error, requests.exceptions.ConnectionError) else str(error)


def _complete(archive: Archive, part: Path) -> None:
    """Download what is missing of `part`; raises RequestException after TRIES tries in a row without a byte."""
    tries = 0
    while True:
        before = _size(part)
        try:
            _get(archive, part)
            return
        except requests.exceptions.RequestException as error:
            tries = 1 if _size(part) > before else tries + 1
            if tries == TRIES or (error.response is not None and error.response.status_code < 500):
                raise
        time.sleep(0.5 * 2 ** (tries - 1))


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _get(archive: Archive, part: Path) -> None:
    have = _size(part)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    with requests.get(archive.url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        said = answer.headers.get("Content-Range", "")
        if have and answer.status_code == 416:
            if said == f"bytes */{have}":
                return  # all of it was here already
            part.unlink()
            raise requests.exceptions.ContentDecodingError("the part is longer than the file")
        answer.raise_for_status()
        if not said.startswith(f"bytes {have}-"):
            have = 0  # the server gives the whole file
        if (packed := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise _Refused(f"a compressed file ({packed}), which was not requested")
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else None
        too_much = _Refused(f"more than the {archive.most / 1e6:.0f} MB that {archive.name} may have")
        if (total or 0) > archive.most:
            raise too_much
        name = part.name.removeprefix(".").removesuffix(PART)
        with part.open("ab" if have else "wb") as out, Bar(total, name, done=have, said=_megabytes) as bar:
            for chunk in answer.iter_content(CHUNK):
                have += len(chunk)
                if have > archive.most:
                    raise too_much
                out.write(chunk)
                bar.advance(len(chunk))


def _megabytes(done: float, total: float | None) -> str:
    return f"{done / 1e6:.0f} of {'?' if total is None else f'{total / 1e6:.0f}'} MB"


# ---- unpacking ----


# what the readers of archives raise on broken or encrypted ones
_BROKEN = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, RuntimeError, ValueError),
)


def unpack(file: Path, folder: Path) -> None:
    """Unpack a zip or tar into a new folder; only plain files and folders, only inside, and not without bound.

    Raises:
        UserError: the file is not such an archive, is broken, or holds what a data set does not.
    """
    bound = max(MIN_BOUND, MAX_RATIO * file.stat().st_size)
    folder.mkdir()
    size = 0
    try:
        for count, (name, source) in enumerate(_members(file), 1):
            if count > MAX_FILES:
                raise _Refused(f"more than {MAX_FILES} files")
            target = _inside(folder, name)
            (target if source is None else target.parent).mkdir(parents=True, exist_ok=True)
            if source is None:
                continue
            with source, target.open("xb") as out:
                while chunk := source.read(CHUNK):
                    size += len(chunk)  # as they come, whatever the archive says of itself
                    if size > bound:
                        raise _Refused(f"more than {bound / 1e6:.0f} MB, of an archive of {file.stat().st_size} bytes")
                    out.write(chunk)
    except _Refused as reason:
        raise UserError(f"{file} was not unpacked: it holds {reason}.") from reason
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(f"{file} was not unpacked: it holds two entries with one name.") from error
    except _BROKEN as error:
        raise UserError(f"{file} cannot be unpacked ({error or type(error).__name__}).") from error


def _members(file: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """The names in an archive, each with its open content, or None for a folder."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _Refused(f"{info.filename!r}, which is a link or a device")
                yield info.filename, None if info.is_dir() else archive.open(info)
    else:
        with tarfile.open(file) as tar:
            for member in tar:
                if not (member.isreg() or member.isdir()):
                    raise _Refused(f"{member.name!r}, which is a link or a device")
                yield member.name, tar.extractfile(member)  # None of a folder


def _inside(folder: Path, name: str) -> Path:
    # Neither tarfile's `data` filter nor zipfile's `extract` is as strict: the one takes the `/` off an absolute name
    # and lets links be that stay inside, the other leaves `..` out of a name; neither bounds sizes or knows of twins.
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise _Refused(f"{name!r}, which points out of its folder")
    return folder / path
