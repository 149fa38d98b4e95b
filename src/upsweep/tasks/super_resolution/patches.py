"""Random aligned patches, each a pure function of (seed, epoch, index)."""

import mmap
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from upsweep.data.degradation import Step, Window, degrade_window, stream
from upsweep.data.store import StoredImage
from upsweep.tasks.feeding import draw

MAPPED = 256 << 20  # bytes of the cache that may stay mapped in this process
FAULT = 64 << 10  # what the kernel maps around a byte that is touched, at most


class Patch(NamedTuple):
    """Aligned parts of an image: lr (C, p, p) and hr (C, p*s, p*s), with a leading N in a batch; float32."""

    lr: Tensor
    hr: Tensor


class PatchPlace(NamedTuple):
    """Which image, where its LR patch begins (LR pixels), and which of the 8 flips and rotations."""

    image: int
    top: int
    left: int
    turn: int


def place_of(
    seed: int, epoch: int, index: int, sizes: Sequence[tuple[int, int]], ends: Sequence[int], patch: int
) -> PatchPlace:
    """Where the patch of sample `index`, counted over all devices, lies in an epoch, counted from 0.

    Args:
        sizes: (height, width) of every LR image, each at least `patch`.
        ends: running sums of their weights (areas, say): an image is chosen with probability proportional to its own.
        patch: side of the LR patch.
    """
    which, down, right, turn = draw(seed, epoch, index)
    image = bisect_right(ends, _below(ends[-1], which))
    height, width = sizes[image]
    return PatchPlace(image, _below(height - patch + 1, down), _below(width - patch + 1, right), _below(8, turn))


def _below(bound: int, word: int) -> int:
    """A 64-bit word scaled to 0 <= integer < bound (the bias is below bound / 2**64)."""
    return word * bound >> 64


def turned(image: NDArray[Any], turn: int) -> NDArray[Any]:
    """One of the 8 flips and rotations of a square (..., p, p), as a view; 0 leaves it as it is."""
    if turn & 1:
        image = image[..., ::-1]
    if turn & 2:
        image = image[..., ::-1, :]
    return image.swapaxes(-1, -2) if turn & 4 else image


def energy(image: NDArray[Any]) -> float:
    """The gradient energy of (C, h, w): the sum of the squared differences of neighbouring pixels."""
    pixels = image.astype(np.float64)
    return float(sum(np.square(np.diff(pixels, axis=axis)).sum() for axis in (1, 2)))


class TrainPatches(Dataset[Patch]):
    """Random patches of the images, found under the key (epoch, index). A plain index means epoch 0.

    A patch touches only its own bytes. The LR is cut from the LR of the whole image, so no false
    border enters it; `steps` of a degradation that are left for each patch see what lies around it, too.
    Of `detail` random patches the one with the most detail is taken.
    """

    def __init__(
        self,
        images: Sequence[StoredImage],
        *,
        patch_size: int,
        count: int,
        seed: int,
        augment: bool = True,
        even: bool = False,
        detail: int = 1,
        steps: Sequence[Step] = (),
    ) -> None:
        self.steps, self.from_hr = steps, any(step.shrinks for step in steps)
        self.images = images
        self.sizes = [(image.lr.shape[1], image.lr.shape[2]) for image in images]
        self.ends = list(accumulate(1 if even else height * width for height, width in self.sizes))
        self.scale = images[0].hr.shape[1] // images[0].lr.shape[1]
        self.channels = images[0].lr.shape[0]
        self.patch_size, self.count, self.seed, self.augment, self.detail = patch_size, count, seed, augment, detail
        self._touched = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int] | int) -> Patch:
        lr, hr = self.__getitems__([key])
        return Patch(lr[0], hr[0])

    def __getitems__(self, keys: Sequence[tuple[int, int] | int]) -> Patch:
        """A whole batch, cut into place: what the DataLoader calls."""
        p, s = self.patch_size, self.scale
        lr = np.empty((len(keys), self.channels, p, p), np.float32)
        hr = np.empty((len(keys), self.channels, p * s, p * s), np.uint8)
        for row, key in enumerate(keys):
            epoch, index = key if isinstance(key, tuple) else (0, key)
            image, top, left, turn = self._place(epoch, index)
            turn *= self.augment
            whole, window = self.images[image], Window(top, top + p, left, left + p)
            lr[row] = turned(self._lr(whole, window, epoch, index), turn)
            hr[row] = turned(window.times(s).of(whole.hr), turn)
        self._let_go(len(keys) * self.detail)
        return Patch(torch.from_numpy(lr), torch.from_numpy(hr).to(torch.float32).div_(255))

    def _place(self, epoch: int, index: int) -> PatchPlace:
        """Of `detail` random places, each under an index of its own, the one whose LR has the most energy."""
        candidates = (index + self.count * further for further in range(self.detail))
        places = [place_of(self.seed, epoch, each, self.sizes, self.ends, self.patch_size) for each in candidates]
        return places[0] if self.detail == 1 else max(places, key=self._energy)

    def _energy(self, place: PatchPlace) -> float:
        window = Window(place.top, place.top + self.patch_size, place.left, place.left + self.patch_size)
        return energy(window.of(self.images[place.image].lr))

    def _let_go(self, patches: int) -> None:
        """Unmap what was read, in time: a cache larger than the memory would else count as this process's own.

        The bytes stay in the kernel's cache of the disk, as long as there is room.
        """
        self._touched += patches * self.channels * self.patch_size * (1 + self.scale) * FAULT
        if self._touched > MAPPED:
            self._touched = 0
            for cache in {id(i.mapped.map): i.mapped.map for i in self.images if i.mapped is not None}.values():
                if len(cache) > MAPPED:
                    cache.madvise(mmap.MADV_DONTNEED)

    def _lr(self, whole: StoredImage, window: Window, epoch: int, index: int) -> NDArray[np.float32]:
        if not self.steps:
            return cast(NDArray[np.float32], window.of(whole.lr))
        source = whole.hr if self.from_hr else whole.lr
        return degrade_window(self.steps, source, window, self.scale, stream(self.seed, epoch, index)).numpy()
