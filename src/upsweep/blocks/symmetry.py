"""Convolutions that share their weights among rotations and flips (Cohen and Welling, Group Equivariant CNNs, 2016).

The channels of features are sorted by orientation, then by field: channel [g F + f] shows field f as the group's g-th
TURN of an image does. Turning the image turns the features, and moves them from one orientation to another; it turns
the output, exactly. So one kernel serves in all orientations: with the same width, and the same multiply-adds, a layer
has a fourth (p4) or an eighth (p4m) of the weights. At x2 a flat image stays flat, away from its border: the four
phases of a deconvolution turn into one another, so that there is no checkerboard (Odena et al. 2016).
"""

from collections.abc import Collection, Iterable
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from upsweep.blocks.conv import SubPixelConv2d
from upsweep.blocks.init import FeatureNorm, Layer
from upsweep.common.errors import UserError
from upsweep.common.names import kind_of
from upsweep.imaging.turns import TURNS, turned

Symmetry = Literal["none", "p4", "p4m"]
ORDER: dict[Symmetry, int] = {"none": 1, "p4": 4, "p4m": 8}  # how many of TURNS each group has


class Turned(nn.Module):
    """The kernel of a layer, (V F', V F, k, k), from that of its first orientation, (F', V F, k, k).

    The part of output orientation g that sees input orientation h is turned by g, and is the one by which the first
    output orientation sees g^-1 h. A layer that sees images has (F, C, k, k), one that makes them (C, F, k, k), turned.
    For a deconvolution the first two axes are swapped.
    """

    index: Tensor  # for each weight of the whole kernel, its place in that of the first orientation

    def __init__(self, order: int, layer: Layer, *, sees_images: bool, makes_images: bool) -> None:
        super().__init__()
        self.order, self.makes_images = order, makes_images
        self.swapped = isinstance(layer, nn.ConvTranspose2d)
        mixes = not (sees_images or makes_images)
        first = self.right_inverse(torch.empty(layer.weight.shape, device="cpu")).shape
        places = torch.arange(first.numel(), device="cpu").view(first)
        self.register_buffer("index", self._whole(places, mixes).to(layer.weight.device), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return weight.flatten()[self.index]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Of a whole kernel, the first orientation."""
        weight = self._by_output(weight)
        return self._by_output(weight.chunk(self.order, 1 if self.makes_images else 0)[0]).clone()

    def _whole(self, first: Tensor, mixes: bool) -> Tensor:
        first = self._by_output(first)
        parts = [first] * self.order
        if mixes:
            fields = first.unflatten(1, (self.order, -1))  # type: ignore[no-untyped-call]
            parts = [fields[:, list(seen)].flatten(1, 2) for seen in quotients(self.order)]
        parts = [turned(part, turn) for part, turn in zip(parts, TURNS, strict=False)]
        return self._by_output(torch.cat(parts, 1 if self.makes_images else 0)).contiguous()

    def _by_output(self, weight: Tensor) -> Tensor:
        return weight.transpose(0, 1) if self.swapped else weight


class Repeated(nn.Module):
    """One number for each channel (V F,), the same in every orientation, from one for each field (F,)."""

    def __init__(self, order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, each: Tensor) -> Tensor:
        return each.repeat(self.order)

    def right_inverse(self, each: Tensor) -> Tensor:
        """Those of the first orientation."""
        return each.chunk(self.order)[0].clone()


@cache
def quotients(order: int) -> tuple[tuple[int, ...], ...]:
    """For each element g of the group, and each h: which element g^-1 h is."""
    grid = torch.arange(9, device="cpu").view(3, 3)  # also where a network is built on the meta device
    turns = TURNS[:order]

    def quotient(g: int, h: int) -> int:
        goal = turned(grid, h)
        return next(k for k, turn in enumerate(turns) if torch.equal(turned(turned(grid, turn), g), goal))

    return tuple(tuple(quotient(g, h) for h in turns) for g in turns)


def share(network: nn.Module, symmetry: Symmetry, last: nn.Module | None) -> None:
    """Have the layers of a chain share their weights, in place; they keep those of the first orientation.

    The first layer of `network` sees images, `last` is, or holds, the one that makes them. What a rule of
    initialisation says of single weights still holds, and so does the identity; kernels are no longer orthogonal.

    Raises:
        UserError: a width is no multiple of the symmetry's order; a part of the network cannot turn.
    """
    if (order := ORDER[symmetry]) == 1:
        return
    layers = [m for m in network.modules() if isinstance(m, Layer)]
    of_last = set() if last is None else set(last.modules())
    for module in list(network.modules()):
        own = dict(module.named_parameters(recurse=False))
        _check(module, own.values(), symmetry)
        if isinstance(module, Layer):
            sees, makes = module is layers[0], module in of_last
            _check_widths([module.in_channels] * (not sees) + [module.out_channels] * (not makes), symmetry)
            kernel = Turned(order, module, sees_images=sees, makes_images=makes)
            parametrize.register_parametrization(module, "weight", kernel)
            own = {} if makes else own  # an image has no orientations
        for name in (name for name, p in own.items() if p.ndim == 1 and p.numel() > 1):  # one slope is shared already
            parametrize.register_parametrization(module, name, Repeated(order))


def _check_widths(widths: Iterable[int], symmetry: Symmetry) -> None:
    order = ORDER[symmetry]
    if odd := next((width for width in widths if width % order), None):
        raise UserError(
            f"generator.symmetry={symmetry} needs features whose channels (generator.width; of FSRCNN d and s) are a "
            f"multiple of {order}, not {odd}."
        )


def _check(module: nn.Module, own: Collection[nn.Parameter], symmetry: Symmetry) -> None:
    """Raise UserError where a part of a network, with parameters of its own, does not turn."""
    said = f"generator.symmetry={symmetry} needs"
    if isinstance(module, FeatureNorm) or parametrize.is_parametrized(module):
        raise UserError(f"{said} norm=none.")
    if isinstance(module, SubPixelConv2d):
        raise UserError(f"{said} upsampler=deconv or resize: a pixel shuffle does not turn.")
    if isinstance(module, nn.ConvTranspose2d) and any(module.output_padding):
        kernel, stride = module.kernel_size[0], module.stride[0]
        even = kernel + (kernel - stride) % 2
        raise UserError(
            f"{said} a deconvolution that lies evenly on its pixels, and this one, of kernel {kernel} at stride "
            f"{stride}, does not: set upsampler.kernel={even} and leave upsampler.padding empty."
        )
    if isinstance(module, Layer):
        steps = (1, 1) if isinstance(module, nn.Conv2d) else module.stride[:1] * 2
        turns = module.groups == 1 and module.stride == steps and len(set(module.kernel_size)) == 1
    else:
        turns = all(p.ndim == 1 for p in own)
    if not turns:
        raise UserError(f"{said} parts that turn, and {kind_of(module)} does not.")
