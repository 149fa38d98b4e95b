"""The DataModule of generation: images and latents to train on, latents and held-out images to judge on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from upsweep.common.checks import at_least
from upsweep.common.errors import UserError
from upsweep.data.sources import Contents, Files, Source, Split
from upsweep.data.stack import Crop, ImageStack, Shape, open_stack
from upsweep.tasks.feeding import (
    ROWS,
    EpochSampler,
    ImageFeed,
    LateLoader,
    as_it_is,
    log,
    none_usable,
    philox,
    require,
    require_counts,
    words_of,
)

LATENTS = 1 << 64  # Philox blocks that no image is drawn from: those before are the words of images
JUDGED = 250  # images, and latents, a validation batch
FIXED = 0  # the seed of what is judged on, whatever the seed of a run: every job makes its samples of the same latents


class Images(NamedTuple):
    """Latents to make images of, and real images, with nothing in common but their number in training.

    In a validation there may be more of the one than of the other, or none.
    """

    latent: Tensor  # (N, L) float32, standard normal
    real: Tensor  # (N, C, S, S) float32 in [0, 1]


class TrainImages(Dataset[Images]):
    """Random images and latents, found under the key (epoch, index). A plain index means epoch 0.

    An image is drawn uniformly, with replacement; where random squares are cut out of whole images, by its area. A
    latent hangs on seed, epoch and index alone, and not on the images.
    """

    def __init__(self, images: ImageStack, *, latent: int, count: int, seed: int, flip: bool) -> None:
        self.images, self.latent, self.count, self.seed, self.flip = images, latent, count, seed, flip
        self.ends = images.sizes.prod(axis=1).cumsum()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int] | int) -> Images:
        return Images(*(values[0] for values in self.__getitems__([key])))

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> Images:
        """A whole batch, gathered at once: what the DataLoader calls."""
        where = [key if isinstance(key, tuple) else (0, key) for key in keys]
        epochs, indices = np.array(where).T
        latent = np.empty((len(where), self.latent), np.float32)
        words = np.empty((len(where), 4), np.uint64)
        for epoch, block in set(zip(epochs.tolist(), (indices // ROWS).tolist(), strict=True)):
            of_it = (epochs == epoch) & (indices // ROWS == block)
            rows = indices[of_it] % ROWS
            words[of_it] = words_of(self.seed, epoch, block)[rows]
            latent[of_it] = normals(self.seed, epoch, block, self.latent)[rows]
        return Images(torch.from_numpy(latent), as_images(drawn(self.images, self.ends, words, flip=self.flip)))


def drawn(images: ImageStack, ends: NDArray[np.int64], words: NDArray[np.uint64], *, flip: bool) -> NDArray[np.uint8]:
    """Squares (N, C, S, S) that words (N, 4) say: which image, from the top, from the left, whether flipped."""
    share = (words >> np.uint64(11)) * 2.0**-53  # in [0, 1), exactly
    rows = np.searchsorted(ends, (share[:, 0] * ends[-1]).astype(np.int64), side="right")
    room = images.sizes[rows] - images.shape.size + 1
    tops, lefts = (share[:, 1:3] * room).astype(np.int64).T
    squares = images.cut(rows, tops, lefts)
    if flip:
        turned = share[:, 3] < 0.5
        squares[turned] = squares[turned, ..., ::-1]
    return squares


@lru_cache(maxsize=4)
def normals(seed: int, epoch: int, block: int, latent: int) -> NDArray[np.float32]:
    """The latents of ROWS neighbours, (ROWS, latent): the sampler's rejections must not hang on who asks for which."""
    own = philox(seed, epoch, LATENTS + (block << 40))  # each block has room for 2**40 draws
    return Generator(own).standard_normal((ROWS, latent), dtype=np.float32)


def fixed_latents(count: int, latent: int) -> Tensor:
    """The first of the latents that every run is judged on: (count, latent)."""
    blocks = [normals(FIXED, 2**64 - 1, block, latent) for block in range(-(-count // ROWS))]
    return torch.from_numpy(np.concatenate(blocks)[:count])


def as_images(squares: NDArray[np.uint8]) -> Tensor:
    """A float32 copy in [0, 1]; by numpy, as torch's threads would wait for those that train."""
    return torch.from_numpy(np.divide(squares, np.float32(255), dtype=np.float32))


class JudgedImages(Dataset[Images]):
    """Batches of latents and of real images (N, C, S, S), uint8, until both are at their ends."""

    def __init__(self, latents: Tensor, real: Tensor) -> None:
        self.latents, self.real = latents, real

    def __len__(self) -> int:
        return -(-max(len(self.latents), len(self.real)) // JUDGED)

    def __getitem__(self, batch: int) -> Images:
        if not 0 <= batch < len(self):
            raise IndexError(batch)
        of_it = slice(batch * JUDGED, (batch + 1) * JUDGED)
        return Images(self.latents[of_it], as_images(self.real[of_it].numpy()))


@dataclass(kw_only=True, eq=False)
class ImageData(ImageFeed):
    """Images of one size with latents to train on; latents and held-out images to judge on."""

    source: Source  # which images are trained on, and which are held out
    size: int  # side of the square that a generator makes
    channels: int  # 1 (Y of BT.601; a grey image as it is) or 3 (RGB)
    latent: int  # numbers a latent
    seed: int  # with epoch and index it decides every image and every latent
    batch_size: int = 16  # images a batch, on each device
    patches_per_epoch: int = 2000  # images an epoch, over all devices
    num_workers: int = 0  # processes that gather batches; 0 gathers them in the training process
    augment: bool = True  # whether images are flipped at all ...
    flip: bool = True  # ... left to right, half of them: not where that makes another thing of them (digits)
    crop: Crop = "centre"  # how a larger image becomes a square: centre, random, resize (upsweep.data.stack.Shape)
    samples: int = 5000  # latents a validation, over all devices
    strict: bool = False  # stop at a file that cannot be used instead of going on without it
    cache: str = "disk"  # "disk" keeps prepared images for all jobs, "none" prepares them in memory
    cache_dir: str = ".cache/upsweep"  # where "disk" keeps them; relative to the folder in which the command was given
    train_images: ImageStack | None = field(default=None, init=False, repr=False)
    val_images: ImageStack | None = field(default=None, init=False, repr=False)
    _passed_over: list[str] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__init__()
        at_least("generator", 1, latent=self.latent)
        require_counts(self, "size", "batch_size", "patches_per_epoch", "samples")
        require(self.channels in (1, 3), "channels", self.channels, "1 (Y) or 3 (RGB)")
        require(self.crop in get_args(Crop), "crop", self.crop, "centre, random or resize")
        require(self.cache in ("disk", "none"), "cache", self.cache, "disk or none")

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002  # Lightning's signature
        """Prepare the images or map the prepared ones; the first of several processes works, the others wait.

        Raises UserError: no image is left to train or to judge on; with `strict`, any file cannot be used.
        """
        if self.train_images is None:
            split = Split(*self.source.load(self.prepared))
            self.train_images, self.val_images = split.training, split.validation
            self._passed_over += (path.name for path in split.passed_over)
            if self.rank == 0:
                log.info(self.contents.sentence)

    def prepared(
        self, files: Files, *, purpose: Literal["training", "validation"], lr_files: Files | None = None
    ) -> ImageStack:
        """The images among `files` that can be used; each that cannot is named in a warning.

        Raises UserError: none can; with `strict`, any cannot. LR files are left alone.
        """
        del lr_files  # an image is what is learnt here, and data=pairs has its HR for that
        shape = Shape(self.size, self.channels, self.crop)
        stack = open_stack(files, shape, Path(self.cache_dir) if self.cache == "disk" else None)
        self.leave_out(stack.refused)
        if not len(stack):
            raise none_usable(list(files), purpose, stack.refused)
        return stack

    @property
    def contents(self) -> Contents:
        """The images that are trained and judged on, once they are set up."""
        training, validation = (
            {} if images is None else dict(zip(images.names, images.digests, strict=True))
            for images in (self.train_images, self.val_images)
        )
        return Contents(training, validation, self.passed_over)

    @property
    def image_sizes(self) -> dict[str, str]:
        """Width and height of these images: `training/a.png` -> `28x28`."""
        parts = {"training": self.train_images, "validation": self.val_images}
        return {
            f"{part}/{name}": f"{width}x{height}"
            for part, images in parts.items()
            if images is not None
            for name, (height, width) in zip(images.names, images.sizes.tolist(), strict=True)
        }

    def training_images(self) -> Tensor:
        """The real images that are trained on, uint8 (N, C, S, S), mapped from the cache; not to be written to.

        Where random squares are cut out of larger images, as many fixed ones as there are `samples`.
        """
        return self._real(self.train_images)

    def validation_images(self) -> Tensor:
        """The real images that are judged on, held out from training, likewise."""
        return self._real(self.val_images)

    def _real(self, images: ImageStack | None) -> Tensor:
        if images is None:
            raise RuntimeError("setup() comes first")
        if self.crop != "random":
            return torch.from_numpy(images.whole())
        blocks = [words_of(FIXED, 2**64 - 1, block) for block in range(-(-self.samples // ROWS))]
        words, ends = np.concatenate(blocks)[: self.samples], images.sizes.prod(axis=1).cumsum()
        return torch.from_numpy(drawn(images, ends, words, flip=False))

    def train_dataloader(self) -> LateLoader[Images]:
        """Batches of `Images`: every device its own share of the epoch, without padding."""
        if self.patches_per_epoch < self.world:
            raise UserError(f"data.patches_per_epoch={self.patches_per_epoch} is too few for {self.world} devices.")
        return LateLoader(
            TrainImages(
                cast(ImageStack, self.train_images),
                latent=self.latent,
                count=self.patches_per_epoch,
                seed=self.seed,
                flip=self.augment and self.flip,
            ),
            batch_size=self.batch_size,
            sampler=EpochSampler(self.patches_per_epoch, rank=self.rank, world=self.world),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            collate_fn=as_it_is,
            pin_memory=self.pinned,
        )

    def val_dataloader(self) -> DataLoader[Images]:
        """Batches of `Images`: device r of n takes latents and real images r, r + n, ..., so each comes once."""
        if self.samples < self.world:
            raise UserError(f"data.samples={self.samples} is too few for {self.world} devices.")
        latents, real = fixed_latents(self.samples, self.latent), self.validation_images()
        mine = JudgedImages(latents[self.rank :: self.world], real[self.rank :: self.world])
        return DataLoader(mine, batch_size=None, pin_memory=self.pinned)
