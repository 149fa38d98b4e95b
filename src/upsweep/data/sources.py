"""Which images a training sees, and which it is validated on: `data=` says it, for any task.

A source names files. Who feeds them to a network prepares them: `load` is given a function for that, since what is held
out depends on which images can be used.
"""

import hashlib
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Generic, Literal, NamedTuple, Protocol, Self, TypeVar

from upsweep.common.errors import UserError
from upsweep.common.names import MOST_NAMED, listed
from upsweep.common.ranks import first_rank
from upsweep.data.class_sets import class_files
from upsweep.data.containers import File, path_of
from upsweep.data.digits import digit_files
from upsweep.data.fetch import fetch
from upsweep.data.foreign import foreign
from upsweep.data.known import TRAINING, data_root, present, training_files
from upsweep.data.photos import TRAIN, VAL, photo_files
from upsweep.imaging.listing import files_below, is_image


class Prepared(Protocol):
    """Images as a task keeps them; a source needs their names, to hold some out."""

    @property
    def names(self) -> Sequence[str]:
        """Of the images; one may come several times, as copies have the names of their originals."""
        ...

    def without(self, names: Collection[str]) -> Self:
        """The images of other names."""
        ...


P = TypeVar("P", bound=Prepared)


class Split(NamedTuple, Generic[P]):
    """The images to train on and those to validate on, none of them in both; files that are not images."""

    training: P
    validation: P
    passed_over: Sequence[Path] = ()


Files = Mapping[str, File]  # by the name of the image
Paths = Mapping[str, Path]

log = logging.getLogger("upsweep")


class Contents(NamedTuple):
    """The images of training and validation: name -> a digest of the pixels; and files that were passed over."""

    training: dict[str, str]
    validation: dict[str, str]
    passed_over: Sequence[str] = ()

    @property
    def sentence(self) -> str:
        """How many there are of each."""
        said = f"{len(self.training)} images to train on, {len(self.validation)} to validate on"
        if not self.passed_over:
            return f"{said}."
        count, end = len(self.passed_over), "" if len(self.passed_over) > MOST_NAMED else "."
        return f"{said}, {count} file{'s' if count > 1 else ''} skipped: {listed(self.passed_over)}{end}"


P_co = TypeVar("P_co", bound=Prepared, covariant=True)


class Prepare(Protocol[P_co]):
    """The images of files that can be used for a purpose, prepared, in the order of the files.

    `files` are the HR by the names of the images, `lr_files` real LR by the same names; without them a task makes its
    own LR, if it needs any. Raises UserError where no image can be used.
    """

    def __call__(
        self, files: Files, *, purpose: Literal["training", "validation"], lr_files: Files | None = None
    ) -> P_co: ...


class Source(ABC):
    """A set of images, in two parts."""

    @abstractmethod
    def load(self, prepare: Prepare[P]) -> Split[P]:
        """Both parts, prepared.

        Raises:
            UserError: files are missing or do not fit, or no image is left on one side.
        """

    def check(self) -> None:  # noqa: B027 - a source of one's own may leave it out
        """Raise UserError where what `load` reads is not there. It decodes nothing: a sweep asks before its jobs."""


class Photos(Source):
    """The colour photos that scikit-image ships: six to train on, three to validate on; see `upsweep.data.photos`."""

    def load(self, prepare: Prepare[P]) -> Split[P]:
        return Split(prepare(photo_files(TRAIN), purpose="training"), prepare(photo_files(VAL), purpose="validation"))

    def check(self) -> None:
        photo_files(TRAIN)


class Digits(Source):
    """The digits that the package carries: 5,000 to train on, 1,000 to validate on; see `upsweep.data.digits`."""

    def load(self, prepare: Prepare[P]) -> Split[P]:
        return Split(
            prepare(digit_files("train"), purpose="training"), prepare(digit_files("validation"), purpose="validation")
        )


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """A folder of one's own images, searched recursively.

    Attributes:
        root: the folder.
        val_root: a folder to validate on (what lies in it is never trained on); without it, a share is held out.
        val_share: see `held_out`.
    """

    root: str | None
    val_root: str | None = None
    val_share: float = 0.1

    def load(self, prepare: Prepare[P]) -> Split[P]:
        passed_over: list[Path] = []
        files, *others = (_images_under(key, root, passed_over) for key, root in self._roots().items())
        if not others:
            return _divided(files, self.val_share, prepare)._replace(passed_over=passed_over)
        (val,) = others
        files = _without(files, val, f"data.val_root={self.val_root} holds all of data.root")
        return Split(prepare(files, purpose="training"), prepare(val, purpose="validation"), passed_over)

    def check(self) -> None:
        for key, root in self._roots().items():
            _listed(key, root)

    def _roots(self) -> dict[str, str]:
        """The folders, by the keys that name them. Raises UserError: none is named."""
        if self.root is None:
            raise UserError("data=folder needs a folder of images: set data.root=PATH.")
        return {"data.root": self.root} | ({} if self.val_root is None else {"data.val_root": self.val_root})


@dataclass(frozen=True, kw_only=True)
class Known(Source):
    """A training set of the field, found by its name; see `upsweep.data.known`.

    It is validated on the first `val_count` images of another training set, where that is there, and on a held-out
    share of its own images where it is not. A benchmark is for `src/evaluate.py` alone.

    Attributes:
        name: of the set.
        root: where the data sets lie; None: the environment variable UPSWEEP_DATA says it.
        val_set: the name of the set to validate on.
        val_count: how many of its images, in the order of their names.
        val_share: see `held_out`.
        download: fetch what is missing first.
    """

    name: str
    root: str | None
    val_set: str
    val_count: int = 20
    val_share: float = 0.1
    download: bool = False

    def load(self, prepare: Prepare[P]) -> Split[P]:
        if type(self.val_count) is not int or self.val_count < 1:
            raise UserError(f"data.val_count={self.val_count!r} must be a number above 0.")
        if self.val_set not in TRAINING:
            raise UserError(f"data.val_set={self.val_set} must be one of {', '.join(TRAINING)}.")
        root = data_root(self.root, make=self.download)
        if self.download:
            fetch(self.name, root)
        files = _named(training_files(self.name, root), root)
        val = _named([file for part in TRAINING[self.val_set] for file in present(part, root)][: self.val_count], root)
        if not val:
            if first_rank(os.environ):
                message = "%s is not in %s: a share of %g of the training images is held out for validation."
                log.info(message, self.val_set, root, self.val_share)
            return _divided(files, self.val_share, prepare)
        own = {path.stem for path in val.values()}  # DIV2K's 900 images are often kept in one folder
        files = {name: path for name, path in files.items() if path.stem not in own}
        if not files:
            raise UserError(
                f"data.val_set={self.val_set} with data.val_count={self.val_count} takes all images of "
                f"data={self.name} for validation: take fewer, or another set."
            )
        return Split(prepare(files, purpose="training"), prepare(val, purpose="validation"))

    def check(self) -> None:
        root = data_root(self.root, make=self.download)
        if not self.download:
            training_files(self.name, root)


@dataclass(frozen=True, kw_only=True)
class Classes(Source):
    """A set of many small images with classes, found by its name; see `upsweep.data.class_sets`.

    It is validated on its test images, and on a held-out share of the others where it has none.

    Attributes:
        name: of the set.
        root: where the data sets lie; None: the environment variable UPSWEEP_DATA says it.
        val_count: how many of the test images, the first; None: all.
        val_share: see `held_out`.
        download: fetch what is missing first.
    """

    name: str
    root: str | None
    val_count: int | None = None
    val_share: float = 0.1
    download: bool = False

    def load(self, prepare: Prepare[P]) -> Split[P]:
        if self.val_count is not None and (type(self.val_count) is not int or self.val_count < 1):
            raise UserError(f"data.val_count={self.val_count!r} must be a number above 0, or null for all.")
        root = data_root(self.root, make=self.download)
        if self.download:
            fetch(self.name, root)
        files, test = class_files(self.name, root)
        if not test:
            if first_rank(os.environ):
                message = "%s has no test images in %s: a share of %g of the others is held out for validation."
                log.info(message, self.name, root, self.val_share)
            return _divided(files, self.val_share, prepare)
        val = dict(islice(test.items(), self.val_count))
        return Split(prepare(files, purpose="training"), prepare(val, purpose="validation"))

    def check(self) -> None:
        root = data_root(self.root, make=self.download)
        if not self.download:
            class_files(self.name, root)


@dataclass(frozen=True, kw_only=True)
class Pairs(Source):
    """Two folders of real LR and HR images, of the same names but for the usual marks (`0001x2.png` and `0001.png`).

    Attributes:
        lr_root: the folder of LR images, searched recursively.
        hr_root: that of HR images, each exactly `scale` times as high and wide as its LR.
        scale: HR pixels per LR pixel.
        val_lr_root: LR images to validate on; without it, a share is held out.
        val_hr_root: their HR.
        val_share: see `held_out`.
    """

    lr_root: str | None
    hr_root: str | None
    scale: int
    val_lr_root: str | None = None
    val_hr_root: str | None = None
    val_share: float = 0.1

    def load(self, prepare: Prepare[P]) -> Split[P]:
        passed_over: list[Path] = []
        hr, lr, *others = (_images_under(key, root, passed_over) for key, root in self._roots().items())
        hr, lr = paired(hr, lr, self.scale)
        if not others:
            return _divided(hr, self.val_share, prepare, lr)._replace(passed_over=passed_over)
        val_hr, val_lr = paired(others[0], others[1], self.scale)
        hr = _without(hr, val_hr, "data.val_hr_root holds all of data.hr_root")
        train = prepare(hr, purpose="training", lr_files=lr)
        return Split(train, prepare(val_hr, purpose="validation", lr_files=val_lr), passed_over)

    def check(self) -> None:
        for key, root in self._roots().items():
            _listed(key, root)

    def _roots(self) -> dict[str, str]:
        """The folders, HR before LR, by the keys that name them. Raises UserError: one of two is not named."""
        if self.lr_root is None or self.hr_root is None:
            raise UserError("data=pairs needs two folders of images: set data.lr_root=PATH and data.hr_root=PATH.")
        roots = {"data.hr_root": self.hr_root, "data.lr_root": self.lr_root}
        if self.val_lr_root is None and self.val_hr_root is None:
            return roots
        if self.val_lr_root is None or self.val_hr_root is None:
            raise UserError("Validation pairs need both folders: set data.val_lr_root=PATH and data.val_hr_root=PATH.")
        return roots | {"data.val_hr_root": self.val_hr_root, "data.val_lr_root": self.val_lr_root}


# ---- who is validated on ----


def _divided(files: Files, share: float, prepare: Prepare[P], lr_files: Files | None = None) -> Split[P]:
    """A share of the images that can be trained on, held out."""
    usable = prepare(files, purpose="training", lr_files=lr_files)
    known = list(dict.fromkeys(usable.names))
    names = set(held_out(known, share))
    if len(names) == len(known):
        folders = [path_of(file).parent for file in files.values()]
        raise UserError(
            f"{os.path.commonpath(folders)} has {len(known)} usable image(s), and "
            f"data.val_share={share} leaves none to train on: add images, or set data.val_root=PATH."
        )
    val = {name: path for name, path in files.items() if name in names}
    return Split(usable.without(names), prepare(val, purpose="validation", lr_files=lr_files))


def held_out(names: Sequence[str], share: float) -> list[str]:
    """About a share of the names, by the hash of each: a known image never changes sides when others are added.

    A name is held out if its hash, as a number in [0, 1), is below the share. If that holds for no name, the one with
    the lowest hash is held out; if it holds for all, the one with the highest is not. Only then do other names count.

    Raises:
        UserError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(f"data.val_share={share} must be between 0 and 1: a run needs validation images.")
    place = {name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in names}
    ranked = sorted(place, key=place.__getitem__)
    below = sum(int.from_bytes(place[name][:8]) < share * 2**64 for name in ranked)
    most = len(names) if round(share * len(names)) == len(names) else len(names) - 1
    return sorted(ranked[: max(1, min(below, most))])


def _without(files: Paths, val: Paths, otherwise: str) -> Paths:
    """The files that are not validated on."""
    kept_apart = {path.resolve() for path in val.values()}
    left = {name: path for name, path in files.items() if path.resolve() not in kept_apart}
    if not left:
        raise UserError(f"No image is left to train on: {otherwise}.")
    return left


def _images_under(key: str, root: str, passed_over: list[Path]) -> Paths:
    """The image files below a folder, one at least, by relative path; files of other kinds go to `passed_over`.

    Images that upsweep made are left out.
    """
    folder, images, others = _listed(key, root)
    passed_over += others
    if not (files := foreign(images, folder)):
        raise UserError(f"{key}={root} has only images that upsweep made; they are not used as data.")
    return _named(files, folder)


def _listed(key: str, root: str) -> tuple[Path, list[Path], list[Path]]:
    """A folder, the image files below it, one at least, and its other files. No file is opened."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        where = "" if folder.is_absolute() else f" in {Path.cwd()}"
        raise UserError(f"{key}={root} is not a folder{where}.")
    below = files_below(folder)
    images = list(filter(is_image, below))
    if not images:
        raise UserError(f"{key}={root} has no images (PNG, JPEG, BMP, TIFF, WebP).")
    return folder, images, [path for path in below if not is_image(path)]


def _named(files: Iterable[Path], folder: Path) -> Paths:
    return {file.relative_to(folder).as_posix(): file for file in files}


# ---- which LR belongs to which HR ----

MOST_MARKS = 4  # at the end of a name: photo_SRF_2_LR_bicubic has three


def paired(hr: Paths, lr: Paths, scale: int) -> tuple[Paths, Paths]:
    """HR and LR files under the names of the HR; names match apart from marks of LR, HR and the scale at their ends.

    As few marks are taken off as make one pair of every file, as many from each LR name and from each HR name: so
    `tile_0x2` is a name of its own beside `tile_0x1`, and the LR of `tile_0` beside `tile_0`.

    Raises:
        UserError: a file has no partner, or more than one, however many marks are taken off.
    """
    hr_stems, lr_stems = ({name: _stems(path, scale) for name, path in files.items()} for files in (hr, lr))
    tried = []
    for off_lr, off_hr in sorted(product(range(MOST_MARKS + 1), repeat=2), key=lambda off: (sum(off), off[1])):
        keys, faults = [], []
        for files, stems, off in ((lr, lr_stems, off_lr), (hr, hr_stems, off_hr)):
            by_key: dict[str, str] = {}
            for name, shorter in stems.items():
                twin = by_key.setdefault(shorter[off], name)
                if twin != name:
                    faults.append(f"{files[name]} and {files[twin]} have the name of one image: keep one of them.")
            keys.append(by_key)
        in_lr, in_hr = keys
        for own, others, files, what in ((in_hr, in_lr, hr, "LR"), (in_lr, in_hr, lr, "HR")):
            alone = sorted(own.keys() - others.keys())
            said = f"has no {what} image with its name ({len(alone)} such file(s))."
            faults += [f"{files[own[key]]} {said}" for key in alone]
        if not faults:
            return {name: hr[name] for name in in_hr.values()}, {name: lr[in_lr[key]] for key, name in in_hr.items()}
        tried.append(faults)
    raise UserError(min(reversed(tried), key=len)[0])  # where several are as few: with the most marks off


def _stems(path: Path, scale: int) -> list[str]:
    """A file's name without its suffix, then with one mark less each, from the end: `0001x2`, `0001`, `0001`, ..."""
    mark = re.compile(rf"[_-]?(SRF_{scale}|LR(BI|bicubic)?|HR|GT|bicubic|BI|x{scale})m?$", re.IGNORECASE)
    stems = [path.stem]
    for _ in range(MOST_MARKS):
        stems.append(mark.sub("", stems[-1]) or stems[-1])
    return stems
