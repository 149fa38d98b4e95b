"""The DataModules: which files, split how, handed to a trainer of any number of devices."""

import hashlib
import logging
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from upsweep.data.degradation import BICUBIC, Chain, Step
from upsweep.data.fetch import fetch
from upsweep.data.known import TRAINING, data_root, find, made_root, training_files
from upsweep.data.patches import EpochSampler, PatchLoader, TrainPatches, as_batch
from upsweep.data.photos import TRAIN, VAL, photo_files
from upsweep.data.store import Settings, StoredImage, open_images
from upsweep.errors import UserError
from upsweep.imaging.files import find_images

SSIM_WINDOW = 11  # an image must keep this many pixels after shaving a scale from every border
log = logging.getLogger("upsweep")


class EvalImage(NamedTuple):
    """A whole image to judge a generator on; float32, in batches of one with a leading N = 1.

    `lr` and `rgb_lr` are what the degradation makes of `hr` and `rgb_hr`: by default the bicubic shrink, not rounded.
    """

    name: str
    lr: Tensor  # (C, h, w), C: what the generator sees
    hr: Tensor  # (C, H, W)
    rgb_lr: Tensor | None  # (3, h, w); None: the image is stored grey
    rgb_hr: Tensor | None  # (3, H, W)


class EvalImages(Dataset[EvalImage]):
    """Stored images, whole, as tensors."""

    def __init__(self, images: Sequence[StoredImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> EvalImage:
        image = self.images[index]
        return EvalImage(
            image.name,
            _tensor(image.lr),
            _tensor(image.hr),
            None if image.rgb_lr is None else _tensor(image.rgb_lr),
            None if image.rgb_hr is None else _tensor(image.rgb_hr),
        )


def _tensor(stored: NDArray[Any]) -> Tensor:
    """A float32 copy; uint8 levels become [0, 1]."""
    copy = torch.from_numpy(stored.astype(np.float32))
    return copy.div_(255) if stored.dtype == np.uint8 else copy


def batch_of_one(items: list[EvalImage]) -> EvalImage:
    """The one image with a leading batch axis (whole images have different sizes)."""
    (item,) = items
    return EvalImage(
        item.name,
        item.lr[None],
        item.hr[None],
        None if item.rgb_lr is None else item.rgb_lr[None],
        None if item.rgb_hr is None else item.rgb_hr[None],
    )


@dataclass(kw_only=True, eq=False)
class SuperResolutionData(pl.LightningDataModule, ABC):
    """Crops to train on and whole images to validate on, LR made from HR by a degradation.

    A data set is a subclass whose `load` says which files are trained and validated on. Works under a
    trainer of any number of devices (made with `use_distributed_sampler=False`: the samplers are ours), and
    without one after `setup()`.

    Attributes:
        scale: HR pixels per LR pixel.
        channels: what the generator sees: 1 (Y of BT.601) or 3 (RGB).
        seed: with epoch and index it decides every crop.
        patch_size: side of an LR patch.
        batch_size: patches a batch, on each device.
        patches_per_epoch: over all devices.
        num_workers: processes that cut patches; 0 cuts them in the training process.
        augment: the 8 flips and rotations.
        copies: shares of their size, in (0, 1), at which the training images are used too (FSRCNN: 0.9 to 0.6).
        even: draw every image equally often, not by its area.
        strict: stop at a file that cannot be used instead of going on without it.
        cache: "disk" keeps prepared images for all jobs, "none" prepares them in memory.
        cache_dir: where "disk" keeps them; relative to the folder in which the command was given.
        degradation: its steps by name, in their order; see `upsweep.data.degradation`. None: bicubic.
    """

    scale: int
    channels: int
    seed: int
    patch_size: int = 24
    batch_size: int = 16
    patches_per_epoch: int = 16_000
    num_workers: int = 0
    augment: bool = True
    copies: Sequence[float] = ()
    even: bool = False
    strict: bool = False
    cache: str = "disk"
    cache_dir: str = ".cache/upsweep"
    degradation: Mapping[str, Step] | None = None
    train_images: list[StoredImage] = field(default_factory=list, init=False, repr=False)
    val_images: list[StoredImage] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        for name in ("scale", "patch_size", "batch_size", "patches_per_epoch"):
            value = getattr(self, name)
            _require(type(value) is int and value > 0, name, value, "a whole number above 0")
        workers = self.num_workers
        _require(type(workers) is int and workers >= 0, "num_workers", workers, "a whole number, 0 or more")
        _require(self.channels in (1, 3), "channels", self.channels, "1 (Y) or 3 (RGB)")
        _require(self.cache in ("disk", "none"), "cache", self.cache, "disk or none")
        self.copies = () if self.copies is None else self.copies
        _require(isinstance(self.copies, list | tuple), "copies", self.copies, "a list, such as [0.9,0.8,0.7,0.6]")
        for share in self.copies:
            _require(isinstance(share, float) and 0 < share < 1, "copies", share, "shares between 0 and 1")
        self.chain = Chain.of(self.degradation)

    @abstractmethod
    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """The images to train on and those to validate on, each from `prepared`."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002  # Lightning's signature
        """Prepare the images or map the prepared ones; the first of several processes works, the others wait.

        Raises:
            UserError: no image is left to train or to validate on; with `strict`, any file cannot be used.
        """
        if not self.train_images:
            if self.chain != BICUBIC and self._rank == 0:
                log.info("Degradation: %s.", self.chain)
            self.train_images, self.val_images = self.load()

    def prepared(
        self,
        files: Mapping[str, Path],
        *,
        purpose: Literal["training", "validation"],
        lr_files: Mapping[str, Path] | None = None,
    ) -> list[StoredImage]:
        """The images among `files` that can be used for a purpose; each that cannot is named in a warning.

        Raises:
            UserError: none can; with `strict`, any cannot.
        """
        training = purpose == "training"
        chain = self.chain.split()[0] if training else self.chain
        seed = self.seed if chain.random else 0  # or else every seed would have a cache of its own
        settings = Settings(self.scale, self.channels, colour=not training, degradation=chain, seed=seed)
        cache_dir = Path(self.cache_dir) if self.cache == "disk" else None
        opened = open_images(files, settings, cache_dir, lr_files=lr_files)
        least = self.patch_size * self.scale if training else SSIM_WINDOW + 2 * self.scale
        why = f"data.patch_size={self.patch_size}" if training else "SSIM"
        if lr_files is not None and opened.refused:  # a pair that is none says that the folders are wrong
            raise UserError(f"{next(iter(opened.refused.values()))} ({len(opened.refused)} such pair(s)).")
        usable, refused = [], list(opened.refused.values())
        for image in opened.images:
            height, width = image.hr.shape[1:]
            if min(height, width) >= least:
                usable.append(image)
            else:
                needed = f"{why} at x{self.scale} needs {least}x{least}"
                refused.append(f"{files[image.name]}: {width}x{height} usable pixels are too few: {needed}")
        for sentence in refused:
            if self.strict:
                raise UserError(f"{sentence} (data.strict=true stops here)")
            if self._rank == 0:
                log.warning("Left out: %s", sentence)
        if not usable:
            reason = f"; {refused[0]}" if refused else ""
            raise UserError(f"None of {len(files)} image files can be used for {purpose}{reason}")
        if training and self.copies:
            if lr_files is not None:
                raise UserError(
                    "data.copies: where LR comes from files, that of a smaller HR is not known: set data.copies=[]."
                )
            shrunk = [open_images(files, replace(settings, size=size), cache_dir).images for size in self.copies]
            usable += [image for images in shrunk for image in images if min(image.hr.shape[1:]) >= least]
        return usable

    def train_dataloader(self) -> PatchLoader:
        """Batches of `Patch`: every device its own share of the epoch, without padding."""
        world = self._world
        if self.patches_per_epoch < world:
            raise UserError(f"data.patches_per_epoch={self.patches_per_epoch} is too few for {world} devices.")
        return PatchLoader(
            TrainPatches(
                self.train_images,
                patch_size=self.patch_size,
                count=self.patches_per_epoch,
                seed=self.seed,
                augment=self.augment,
                even=self.even,
                steps=self.chain.split()[1],
            ),
            batch_size=self.batch_size,
            sampler=EpochSampler(self.patches_per_epoch, rank=self._rank, world=world),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_batch,
            pin_memory=self._pinned,
        )

    def val_dataloader(self) -> DataLoader[EvalImage]:
        """Whole images, one a batch: device r of n takes images r, r + n, ..., so each is judged once."""
        if len(self.val_images) < self._world:
            raise UserError(
                f"{len(self.val_images)} validation images are too few for {self._world} devices: each needs "
                "one, so add some (data.val_share, data.val_root) or use fewer devices."
            )
        mine = EvalImages(self.val_images[self._rank :: self._world])
        return DataLoader(mine, batch_size=1, collate_fn=batch_of_one, pin_memory=self._pinned)

    def describe(self) -> dict[str, int | float | str]:
        """Plain values for logs, after `setup`."""

        def megapixels(images: list[StoredImage]) -> float:
            return sum(math.prod(image.hr.shape[1:]) for image in images) / 1e6

        return {
            "train_images": len(self.train_images),
            "train_megapixels": megapixels(self.train_images),
            "val_images": len(self.val_images),
            "val_megapixels": megapixels(self.val_images),
            "patches_per_epoch": self.patches_per_epoch,
            "patch_size": self.patch_size,
            "batch_size": self.batch_size,
            "cache": self.cache,
            "degradation": str(self.chain),
        }

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    @property
    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    @property
    def _pinned(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"


class PhotosData(SuperResolutionData):
    """The colour photos that scikit-image ships: six to train on, three to validate on."""

    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """The fixed split of `upsweep.data.photos`."""
        return (
            self.prepared(photo_files(TRAIN), purpose="training"),
            self.prepared(photo_files(VAL), purpose="validation"),
        )


@dataclass(kw_only=True, eq=False)
class HeldOutData(SuperResolutionData):
    """Images of which a share is validated on instead of trained on, where there are no others for that.

    Attributes:
        val_share: the share of the usable images held out, one at least; see `held_out`.
    """

    val_share: float = 0.1

    def divided(
        self, files: Mapping[str, Path], lr_files: Mapping[str, Path] | None = None
    ) -> tuple[list[StoredImage], list[StoredImage]]:
        """Training and validation images, with none on both sides.

        Raises:
            UserError: no image can be used, or nothing is left to train on.
        """
        usable = self.prepared(files, purpose="training", lr_files=lr_files)
        known = list(dict.fromkeys(image.name for image in usable))  # copies have the names of their originals
        names = set(held_out(known, self.val_share))
        if len(names) == len(known):
            raise UserError(
                f"{_parent(files)} has {len(known)} usable image(s), of which data.val_share={self.val_share} leaves "
                "none to train on: add images, or set data.val_root=PATH."
            )
        val = {name: path for name, path in files.items() if name in names}
        train_images = [image for image in usable if image.name not in names]
        return train_images, self.prepared(val, purpose="validation", lr_files=lr_files)


@dataclass(kw_only=True, eq=False)
class FolderData(HeldOutData):
    """Anyone's folder of images, searched recursively.

    Attributes:
        root: the folder.
        val_root: a folder to validate on (what lies in it is never trained on); without it, `val_share` is held out.
    """

    root: str | None
    val_root: str | None = None

    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """Training and validation images, with none on both sides.

        Raises:
            UserError: a folder is missing or holds no image that can be used, or nothing is left on one side.
        """
        if self.root is None:
            raise UserError("data=folder needs a folder of images: set data.root=PATH.")
        files = _images_under("data.root", self.root)
        if self.val_root is None:
            return self.divided(files)
        val = _images_under("data.val_root", self.val_root)
        kept_apart = {path.resolve() for path in val.values()}
        files = {name: path for name, path in files.items() if path.resolve() not in kept_apart}
        if not files:
            raise UserError(f"Nothing is left to train on: data.val_root={self.val_root} holds all of data.root.")
        return self.prepared(files, purpose="training"), self.prepared(val, purpose="validation")


@dataclass(kw_only=True, eq=False)
class KnownData(HeldOutData):
    """A training set of the field, found by its name; see `upsweep.data.known`.

    It is validated on the first `val_count` images of another training set, where that is there, and on a held-out
    share of its own images where it is not. A benchmark is for `src/evaluate.py` alone.

    Attributes:
        name: of the set.
        root: where the data sets lie; None: the environment variable UPSWEEP_DATA says it.
        val_set: the name of the set to validate on.
        val_count: how many of its images, in the order of their names.
        download: fetch what is missing first.
    """

    name: str
    root: str | None
    val_set: str
    val_count: int = 20
    download: bool = False

    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """Training and validation images, with none on both sides.

        Raises:
            UserError: the set is not there and cannot be fetched, or no image of it can be used.
        """
        _require(type(self.val_count) is int and self.val_count > 0, "val_count", self.val_count, "a number above 0")
        if self.download:
            fetch(self.name, made_root(self.root))
        root = data_root(self.root)
        files = _by_name(training_files(self.name, root), root)
        if self.val_set not in TRAINING:
            raise UserError(f"data.val_set={self.val_set} is not among {', '.join(TRAINING)}.")
        val = _by_name([file for part in TRAINING[self.val_set] for file in find(part, root)][: self.val_count], root)
        if not val:
            if self._rank == 0:
                log.info(
                    "%s is not in %s to validate on: %g of the training images are held out.",
                    self.val_set,
                    root,
                    self.val_share,
                )
            return self.divided(files)
        own = {path.stem for path in val.values()}  # DIV2K's 900 images are often kept in one folder
        files = {name: path for name, path in files.items() if path.stem not in own}
        return self.prepared(files, purpose="training"), self.prepared(val, purpose="validation")


@dataclass(kw_only=True, eq=False)
class PairsData(HeldOutData):
    """Two folders of real LR and HR images, of the same names but for the usual marks (`0001x2.png` and `0001.png`).

    Attributes:
        lr_root: the folder of LR images, searched recursively.
        hr_root: that of HR images, each exactly `scale` times as high and wide as its LR.
        val_lr_root: LR images to validate on; without it, `val_share` is held out.
        val_hr_root: their HR.
    """

    lr_root: str | None
    hr_root: str | None
    val_lr_root: str | None = None
    val_hr_root: str | None = None

    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """Training and validation images, with none on both sides.

        Raises:
            UserError: a folder is missing, a file has no partner, or a pair's sizes are not those of the scale.
        """
        if self.chain != BICUBIC:
            raise UserError("data=pairs brings its own LR images, which no degradation makes: leave degradation alone.")
        if self.lr_root is None or self.hr_root is None:
            raise UserError("data=pairs needs two folders of images: set data.lr_root=PATH and data.hr_root=PATH.")
        hr, lr = paired(_images_under("data.hr_root", self.hr_root), _images_under("data.lr_root", self.lr_root))
        if self.val_lr_root is None and self.val_hr_root is None:
            return self.divided(hr, lr)
        if self.val_lr_root is None or self.val_hr_root is None:
            raise UserError("Validation pairs need both folders: set data.val_lr_root=PATH and data.val_hr_root=PATH.")
        val_hr, val_lr = paired(
            _images_under("data.val_hr_root", self.val_hr_root), _images_under("data.val_lr_root", self.val_lr_root)
        )
        kept_apart = {path.resolve() for path in val_hr.values()}
        hr = {name: path for name, path in hr.items() if path.resolve() not in kept_apart}
        if not hr:
            raise UserError("Nothing is left to train on: data.val_hr_root holds all of data.hr_root.")
        return (
            self.prepared(hr, purpose="training", lr_files=lr),
            self.prepared(val_hr, purpose="validation", lr_files=val_lr),
        )


# What tells an LR file's name from that of its HR: 0001x2, img_001_SRF_2_LR, baby_LRBI_x4, 0001_hr, ...
_MARKS = re.compile(r"([_-]?(SRF_\d|LR(BI|bicubic)?|HR|GT|bicubic|BI|x\d|X\d)m?)+$", re.IGNORECASE)


def paired(hr: Mapping[str, Path], lr: Mapping[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """HR and LR files under the names of the HR, which match but for the usual marks of LR and HR at their ends.

    Raises:
        UserError: a file has no partner, or more than one.
    """
    by_key: list[dict[str, str]] = []
    for files in (hr, lr):
        keys: dict[str, str] = {}
        for name, path in files.items():
            key = _MARKS.sub("", path.stem) or path.stem
            if key in keys:
                raise UserError(f"{path} and {files[keys[key]]} are one image's by their names: keep one of them.")
            keys[key] = name
        by_key.append(keys)
    hr_names, lr_names = by_key
    for found, other, files, what in ((hr_names, lr_names, hr, "LR"), (lr_names, hr_names, lr, "HR")):
        if alone := sorted(found.keys() - other.keys()):
            raise UserError(f"{files[found[alone[0]]]} has no {what} image of its name ({len(alone)} such file(s)).")
    return {name: hr[name] for name in hr_names.values()}, {name: lr[lr_names[k]] for k, name in hr_names.items()}


def _by_name(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Files by what distinguishes them for a reader: the path below the root."""
    return {file.relative_to(root).as_posix(): file for file in files}


def _parent(files: Mapping[str, Path]) -> Path:
    """The folder that all files lie in, on whatever level."""
    return Path(os.path.commonpath([path.parent for path in files.values()]))


def held_out(names: Sequence[str], share: float) -> list[str]:
    """A share of the names, one at least, by their hashes: the same on every machine and for every order.

    Raises:
        UserError: the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise UserError(
            f"data.val_share={share} must lie between 0 and 1: without validation images there is no result."
        )
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest())
    return sorted(ranked[: max(1, round(share * len(names)))])


def _images_under(key: str, root: str) -> dict[str, Path]:
    """The image files below a folder, by relative path.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"{key}={root} is not a folder.")
    files = {path.relative_to(folder).as_posix(): path for path in find_images(folder)}
    if not files:
        raise UserError(f"{key}={root} holds no image (PNG, JPEG, BMP, TIFF, WebP).")
    return files


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UserError(f"data.{name}={value!r}: it must be {wanted}.")
