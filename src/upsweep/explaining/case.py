"""What is explained: a trained upscaler on an image, and a window in it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from upsweep.common.devices import device_holding
from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge
from upsweep.imaging.tiles import fullest
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """A trained upscaler on an image.

    Attributes:
        name: what pictures and sentences call it.
        network: in evaluation mode.
        image: as the network sees it, with N = 1 and on its device: LR (1, C, h, w), HR (1, C, s h, s w).
        sr: what it makes of LR, (1, C, s h, s w) float32, not clipped.
    """

    name: str
    network: Upscaler
    image: EvalImage
    sr: Tensor

    @property
    def scale(self) -> int:
        """HR pixels per LR pixel."""
        return self.network.scale

    @property
    def bicubic(self) -> Tensor:
        """LR enlarged bicubically, (1, C, s h, s w)."""
        return enlarge(self.image.lr, self.scale)


@torch.no_grad()
def case(name: str, network: Upscaler, image: EvalImage) -> Case:
    """The network before the image, which is moved to the network's device.

    Raises:
        UserError: it makes NaN or infinity of it.
    """
    device = device_holding(network)
    image = image.each(lambda x: x.to(device))
    sr: Tensor = network.eval()(image.lr).float()
    if not sr.isfinite().all():
        raise UserError(f"{name} makes NaN or infinity of {image.name}: there is nothing to explain, train it again.")
    return Case(name=name, network=network, image=image, sr=sr)


def unturned(network: Upscaler) -> Upscaler:
    """The same parts as they see an image first: whole and not turned, whatever `network.views` adds to that."""
    first = copy.copy(network)
    first.views = 1
    return first


@dataclass(frozen=True)
class Square:
    """A square of HR pixels: its top left corner, and its side."""

    top: int
    left: int
    size: int

    def __str__(self) -> str:
        return f"the {self.size}x{self.size} HR pixels at [{self.left},{self.top}]"

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.size), slice(self.left, self.left + self.size)

    def in_lr(self, scale: int) -> tuple[slice, slice]:
        """Rows and columns of the LR pixels that the square covers, in whole or in part."""
        rows, columns = (slice(s.start // scale, -(-s.stop // scale)) for s in self.slices)
        return rows, columns


def window_at(x: int, y: int, size: int, image: EvalImage, corner: tuple[int, int] = (0, 0)) -> Square:
    """The square of HR with its top left corner at column x and row y of the file; HR begins at the file's `corner`.

    Raises:
        UserError: it does not lie in HR, or `size` is too small.
    """
    height, width = image.hr.shape[-2:]
    _hold_to_size(size, image.name, height, width)
    left, top = x - corner[0], y - corner[1]
    if left < 0 or top < 0 or left + size > width or top + size > height:
        start = "" if corner == (0, 0) else " from [{},{}] on".format(*corner)
        raise UserError(f"at=[{x},{y}] with size={size} is not inside {image.name}, {width}x{height} HR pixels{start}.")
    return Square(top, left, size)


def fullest_window(energy: Tensor, size: int, name: str) -> Square:
    """The square with the largest sum of `energy` (H, W) of the image `name`.

    Raises:
        UserError: the image is smaller than the square, or `size` is too small.
    """
    _hold_to_size(size, name, *energy.shape)
    return Square(*fullest(energy, (size, size)), size)


def _hold_to_size(size: int, name: str, height: int, width: int) -> None:
    if type(size) is not int or not 2 <= size <= min(height, width):
        raise UserError(f"size={size} must be 2 to {min(height, width)}: {name} has {width}x{height} HR pixels.")
