"""The DataModules: which files, split how, handed to a trainer of any number of devices."""

import hashlib
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from upsweep.data.patches import EpochSampler, PatchLoader, TrainPatches, as_batch
from upsweep.data.photos import TRAIN, VAL, photo_files
from upsweep.data.store import Settings, StoredImage, open_images
from upsweep.errors import UserError
from upsweep.imaging.files import find_images

SSIM_WINDOW = 11  # an image must keep this many pixels after shaving a scale from every border
log = logging.getLogger("upsweep")


class EvalImage(NamedTuple):
    """A whole image to judge a generator on; float32, in batches of one with a leading N = 1.

    `lr` and `rgb_lr` are the bicubic shrink of `hr` and `rgb_hr`, not rounded.
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
    """Crops to train on and whole images to validate on, LR made from HR by MATLAB's bicubic.

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
        strict: stop at a file that cannot be used instead of going on without it.
        cache: "disk" keeps prepared images for all jobs, "none" prepares them in memory.
        cache_dir: where "disk" keeps them; relative to the folder in which the command was given.
    """

    scale: int
    channels: int
    seed: int
    patch_size: int = 24
    batch_size: int = 16
    patches_per_epoch: int = 16_000
    num_workers: int = 0
    augment: bool = True
    strict: bool = False
    cache: str = "disk"
    cache_dir: str = ".cache/upsweep"
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

    @abstractmethod
    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """The images to train on and those to validate on, each from `prepared`."""

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002  # Lightning's signature
        """Prepare the images or map the prepared ones; the first of several processes works, the others wait.

        Raises:
            UserError: no image is left to train or to validate on; with `strict`, any file cannot be used.
        """
        if not self.train_images:
            self.train_images, self.val_images = self.load()

    def prepared(self, files: Mapping[str, Path], *, purpose: Literal["training", "validation"]) -> list[StoredImage]:
        """The images among `files` that can be used for a purpose; each that cannot is named in a warning.

        Raises:
            UserError: none can; with `strict`, any cannot.
        """
        training = purpose == "training"
        settings = Settings(self.scale, self.channels, colour=not training)
        opened = open_images(files, settings, Path(self.cache_dir) if self.cache == "disk" else None)
        least = self.patch_size * self.scale if training else SSIM_WINDOW + 2 * self.scale
        why = f"data.patch_size={self.patch_size}" if training else "SSIM"
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
class FolderData(SuperResolutionData):
    """Anyone's folder of images, searched recursively.

    Attributes:
        root: the folder.
        val_root: a folder to validate on (what lies in it is never trained on).
        val_share: without `val_root`, the share of the usable images held out, one at least; see `held_out`.
    """

    root: str | None
    val_root: str | None = None
    val_share: float = 0.1

    def load(self) -> tuple[list[StoredImage], list[StoredImage]]:
        """Training and validation images, with none on both sides.

        Raises:
            UserError: a folder is missing or holds no image that can be used, or nothing is left on one side.
        """
        if self.root is None:
            raise UserError("data=folder needs a folder of images: set data.root=PATH.")
        files = _images_under("data.root", self.root)
        if self.val_root is not None:
            val = _images_under("data.val_root", self.val_root)
            kept_apart = {path.resolve() for path in val.values()}
            files = {name: path for name, path in files.items() if path.resolve() not in kept_apart}
            if not files:
                raise UserError(f"Nothing is left to train on: data.val_root={self.val_root} holds all of data.root.")
            return self.prepared(files, purpose="training"), self.prepared(val, purpose="validation")
        usable = self.prepared(files, purpose="training")
        names = set(held_out([image.name for image in usable], self.val_share))
        if len(names) == len(usable):
            raise UserError(
                f"data.root={self.root} has {len(usable)} usable image(s), of which data.val_share="
                f"{self.val_share} leaves none to train on: add images, or set data.val_root=PATH."
            )
        val = {name: path for name, path in files.items() if name in names}
        train_images = [image for image in usable if image.name not in names]
        return train_images, self.prepared(val, purpose="validation")


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
