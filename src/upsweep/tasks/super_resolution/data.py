"""The DataModule of super-resolution: LR made of HR, patches to train on, whole images to validate on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from upsweep.common.errors import UserError
from upsweep.data.degradation import BICUBIC, Chain, Step
from upsweep.data.sources import Contents, Files, Source, Split
from upsweep.data.store import Settings, StoredImage, StoredImages, open_images
from upsweep.metrics.functional import SSIM_WINDOW
from upsweep.tasks.feeding import EpochSampler, ImageFeed, LateLoader, as_it_is, none_usable, require, require_counts
from upsweep.tasks.super_resolution.patches import Patch, TrainPatches

Purpose = Literal["training", "validation"]
MOST_DETAIL = 256  # random patches for one that is used
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

    def each(self, function: Callable[[Tensor], Tensor]) -> "EvalImage":
        """The image with a function applied to each of its tensors."""
        return EvalImage._make([self.name, *(None if x is None else function(x) for x in self[1:])])


class EvalImages(Dataset[EvalImage]):
    """Stored images, whole, as tensors."""

    def __init__(self, images: Sequence[StoredImage]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> EvalImage:
        image = self.images[index]
        colours = (None if stored is None else as_tensor(stored) for stored in (image.rgb_lr, image.rgb_hr))
        return EvalImage(image.name, as_tensor(image.lr), as_tensor(image.hr), *colours)


def as_tensor(stored: NDArray[Any]) -> Tensor:
    """A float32 copy; uint8 levels become [0, 1]."""
    copy = torch.from_numpy(stored.astype(np.float32))
    return copy.div_(255) if stored.dtype == np.uint8 else copy


def batch_of_one(items: list[EvalImage]) -> EvalImage:
    """The one image with a leading batch axis (whole images have different sizes)."""
    (item,) = items
    return item.each(lambda x: x[None])


@dataclass(kw_only=True, eq=False)
class PatchData(ImageFeed):
    """Patches to train on and whole images to validate on, LR made from HR by a degradation."""

    source: Source  # which images are trained and validated on
    scale: int  # HR pixels per LR pixel
    channels: int  # what the generator sees: 1 (Y of BT.601) or 3 (RGB)
    seed: int  # with epoch and index it decides every patch
    patch_size: int = 20  # side of an LR patch
    batch_size: int = 16  # patches a batch, on each device
    patches_per_epoch: int = 2000  # over all devices
    num_workers: int = 0  # processes that cut patches; 0 cuts them in the training process
    augment: bool = True  # the 8 flips and rotations
    copies: Sequence[float] = ()  # shares of their size, in (0, 1), at which images are used too (FSRCNN: 0.9 to 0.6)
    even: bool = False  # draw every image equally often, not by its area
    detail: int = 1  # of so many random patches take the one with the most detail
    strict: bool = False  # stop at a file that cannot be used instead of going on without it
    cache: str = "disk"  # "disk" keeps prepared images for all jobs, "none" prepares them in memory
    cache_dir: str = ".cache/upsweep"  # where "disk" keeps them; relative to the folder in which the command was given
    degradation: Mapping[str, Step] | None = None  # by name, in their order (upsweep.data.degradation); None: bicubic
    train_images: list[StoredImage] = field(default_factory=list, init=False, repr=False)
    val_images: list[StoredImage] = field(default_factory=list, init=False, repr=False)
    _passed_over: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        require_counts(self, "scale", "patch_size", "batch_size", "patches_per_epoch", "detail")
        require(self.detail <= MOST_DETAIL, "detail", self.detail, f"at most {MOST_DETAIL}: each patch takes time")
        require(self.channels in (1, 3), "channels", self.channels, "1 (Y) or 3 (RGB)")
        require(self.cache in ("disk", "none"), "cache", self.cache, "disk or none")
        self.copies = () if self.copies is None else self.copies
        require(isinstance(self.copies, list | tuple), "copies", self.copies, "a list, such as [0.9,0.8,0.7,0.6]")
        for share in self.copies:
            require(isinstance(share, float) and 0 < share < 1, "copies", share, "shares between 0 and 1")
        self.chain = Chain.of(self.degradation)

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002  # Lightning's signature
        """Prepare the images or map the prepared ones; the first of several processes works, the others wait.

        Raises UserError: no image is left to train or to validate on; with `strict`, any file cannot be used.
        """
        if not self.train_images:
            if self.chain != BICUBIC and self.rank == 0:
                log.info("Degradation: %s.", self.chain)
            split = Split(*self.source.load(self.prepared))
            self.train_images, self.val_images = split.training, split.validation
            self._passed_over += (path.name for path in split.passed_over)
            if self.rank == 0:
                log.info(self.contents.sentence)

    @property
    def contents(self) -> Contents:
        """The images that are trained and validated on, once they are set up."""
        training, validation = (
            {image.name: image.digest for image in images} for images in (self.train_images, self.val_images)
        )
        return Contents(training, validation, self.passed_over)

    @property
    def image_sizes(self) -> dict[str, str]:
        """Width and height of their HR: `training/a.png` -> `512x512`."""
        parts = {"training": self.train_images, "validation": self.val_images}
        each = ((f"{part}/{image.name}", image.hr.shape) for part, images in parts.items() for image in images)
        return {name: f"{width}x{height}" for name, (_, height, width) in each}

    def prepared(self, files: Files, *, purpose: Purpose, lr_files: Files | None = None) -> StoredImages:
        """The images among `files` that can be used for a purpose; each that cannot is named in a warning.

        Raises UserError: none can; with `strict`, any cannot; real LR has another size, or goes with no setting.
        """
        training = purpose == "training"
        if lr_files is not None:
            self._refuse_what_makes_lr()
        chain = self.chain.split()[0] if training else self.chain
        settings = Settings(self.scale, self.channels, colour=not training, degradation=chain)
        cache = Path(self.cache_dir) if self.cache == "disk" else None
        opened = open_images(files, settings, cache, lr_files=lr_files)
        if lr_files is not None and opened.refused:  # a pair that is none says that the folders are wrong
            raise UserError(f"{next(iter(opened.refused.values()))} ({len(opened.refused)} such pair(s)).")
        least = self.patch_size * self.scale if training else SSIM_WINDOW + 2 * self.scale
        why = f"data.patch_size={self.patch_size}" if training else "SSIM"
        usable, refused = StoredImages(), opened.refused
        for image in opened.images:
            height, width = image.hr.shape[1:]
            if min(height, width) >= least:
                usable.append(image)
            else:
                needed = f"{why} at x{self.scale} needs {least}x{least}"
                refused[image.name] = f"{files[image.name]}: {width}x{height} usable pixels are too few: {needed}"
        self.leave_out(refused)
        if not usable:
            raise none_usable(list(files), purpose, refused)
        for size in self.copies if training else ():
            copies = open_images(files, replace(settings, size=size), cache).images
            usable += [image for image in copies if min(image.hr.shape[1:]) >= least]
        return usable

    def _refuse_what_makes_lr(self) -> None:
        if self.chain != BICUBIC:
            raise UserError("data=pairs brings its own LR images, which no degradation makes: leave degradation alone.")
        if self.copies:
            raise UserError(
                "data.copies: where LR comes from files, that of a smaller HR is not known: set data.copies=[]."
            )

    def train_dataloader(self) -> LateLoader[Patch]:
        """Batches of `Patch`: every device its own share of the epoch, without padding."""
        world = self.world
        if self.patches_per_epoch < world:
            raise UserError(f"data.patches_per_epoch={self.patches_per_epoch} is too few for {world} devices.")
        return LateLoader(
            TrainPatches(
                self.train_images,
                patch_size=self.patch_size,
                count=self.patches_per_epoch,
                seed=self.seed,
                augment=self.augment,
                even=self.even,
                detail=self.detail,
                steps=self.chain.split()[1],
            ),
            batch_size=self.batch_size,
            sampler=EpochSampler(self.patches_per_epoch, rank=self.rank, world=world),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_it_is,
            pin_memory=self.pinned,
        )

    def val_dataloader(self) -> DataLoader[EvalImage]:
        """Whole images, one a batch: device r of n takes images r, r + n, ..., so each is judged once."""
        if len(self.val_images) < self.world:
            raise UserError(
                f"{len(self.val_images)} validation images are too few for {self.world} devices: each needs "
                "one, so add some (data.val_share, data.val_root) or use fewer devices."
            )
        mine = EvalImages(self.val_images[self.rank :: self.world])
        return DataLoader(mine, batch_size=1, collate_fn=batch_of_one, pin_memory=self.pinned)
