"""Convolutions that share their weights among rotations and flips (Cohen and Welling, Group Equivariant CNNs, 2016).

The channels of features are sorted by orientation, then by field: channel [g F + f] shows field f as the group's g-th
TURN of an image does. Turning the image turns the features, and moves them from one orientation to another; it turns
the output, exactly. So one kernel serves in all orientations: with the same width, and the same multiply-adds, a layer
has a fourth (p4) or an eighth (p4m) of the weights.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from upsweep.blocks.conv import SubPixelConv2d
from upsweep.blocks.init import Layer
from upsweep.blocks.recipe import Recipe
from upsweep.common.errors import UserError
from upsweep.imaging.turns import TURNS, turned

Symmetry = Literal["none", "p4", "p4m"]
ORDER = {"none": 1, "p4": 4, "p4m": 8}  # how many of TURNS each group has


class Turned(nn.Module):
    """The kernel of a layer, (V F', V F, k, k), from that of its first orientation, (F', V F, k, k).

    The part of output orientation g that sees input orientation h is turned by g, and is the one by which the first
    output orientation sees g^-1 h. A layer that sees images has (F, C, k, k), one that makes them (C, F, k, k), turned.
    For a deconvolution the first two axes are swapped.
    """

    def __init__(self, order: int, layer: nn.Module, *, sees_images: bool, makes_images: bool) -> None:
        super().__init__()
        self.order, self.makes_images = order, makes_images
        self.swapped = isinstance(layer, nn.ConvTranspose2d)
        self.seen = None if sees_images or makes_images else quotients(order)

    def forward(self, weight: Tensor) -> Tensor:
        weight = self._by_output(weight)
        if self.seen is None:
            parts = [weight] * self.order
        else:
            fields = weight.reshape(weight.shape[0], self.order, -1, *weight.shape[2:])
            parts = [fields[:, seen].flatten(1, 2) for seen in self.seen]
        parts = [turned(part, turn) for part, turn in zip(parts, TURNS, strict=False)]
        return self._by_output(torch.cat(parts, 1 if self.makes_images else 0))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Of a whole kernel, the first orientation."""
        weight = self._by_output(weight)
        return self._by_output(weight.chunk(self.order, 1 if self.makes_images else 0)[0]).clone()

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


def quotients(order: int) -> list[list[int]]:
    """For each element g of the group, and each h: which element g^-1 h is."""
    grid = torch.arange(9, device="cpu").view(3, 3)  # also where a network is built on the meta device
    turns = TURNS[:order]

    def quotient(g: int, h: int) -> int:
        goal = turned(grid, h)
        return next(k for k, turn in enumerate(turns) if torch.equal(turned(turned(grid, turn), g), goal))

    return [[quotient(g, h) for h in turns] for g in turns]


def share(network: nn.Module, symmetry: Symmetry, recipe: Recipe, last: nn.Module | None) -> None:
    """Have the layers of a chain share their weights, in place; they keep those of the first orientation.

    The first layer of `network` sees images, `last` is, or holds, the one that makes them.

    Raises:
        UserError: there is no such symmetry; a width is no multiple of its order; a part of the network cannot turn.
    """
    if symmetry not in get_args(Symmetry):
        raise UserError(f"generator.symmetry={symmetry} must be one of {', '.join(get_args(Symmetry))}.")
    if (order := ORDER[symmetry]) == 1:
        return
    if recipe.norm.layer(order) is not None or any(map(parametrize.is_parametrized, network.modules())):
        raise UserError(f"generator.symmetry={symmetry} needs norm=none.")
    layers = [m for m in network.modules() if isinstance(m, Layer)]
    of_last = set() if last is None else set(last.modules())
    for module in list(network.modules()):
        names = [name for name, p in module.named_parameters(recurse=False) if p.ndim == 1 and p.numel() > 1]
        if isinstance(module, Layer):
            sees, makes = module is layers[0], module in of_last
            features = [module.in_channels] * (not sees) + [module.out_channels] * (not makes)
            _check(module, symmetry, features)
            kernel = Turned(order, module, sees_images=sees, makes_images=makes)
            parametrize.register_parametrization(module, "weight", kernel)
            names = [] if makes else names  # an image has no orientations
        for name in names:  # biases, and slopes of PReLU; a single one is shared already
            parametrize.register_parametrization(module, name, Repeated(order))


def _check(layer: Layer, symmetry: Symmetry, widths: list[int]) -> None:
    """Raise UserError where a layer, with features of these widths, cannot share its weights."""
    said, order = f"generator.symmetry={symmetry} needs", ORDER[symmetry]
    if odd := next((width for width in widths if width % order), None):
        raise UserError(f"{said} features whose channels are a multiple of {order}, not {odd}.")
    if isinstance(layer, SubPixelConv2d):
        raise UserError(f"{said} upsampler=deconv or resize: a pixel shuffle does not turn.")
    if isinstance(layer, nn.ConvTranspose2d) and any(layer.output_padding):
        kernel, stride = layer.kernel_size[0], layer.stride[0]
        raise UserError(
            f"{said} a deconvolution that lies evenly on its pixels: a kernel of {kernel} at stride {stride} does not; "
            f"take {kernel + 1}."
        )
