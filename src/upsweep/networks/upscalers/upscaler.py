"""What every upscaler is: a network that enlarges images by a whole factor."""

import math
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.symmetry import ORDER, Symmetry, share
from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge
from upsweep.imaging.turns import TURNS, mean_over
from upsweep.networks.network import Network

Skip = Literal["bicubic", "none"]


class Upscaler(Network):
    """Enlarges images `scale` times: `forward` maps (N, C, H, W) to (N, C, s H, s W), values around [0, 1].

    Args:
        scale: the factor s; one of the class's `scales`.
        channels: C, 1 (the Y plane) or 3 (RGB).
        skip: what is added to the network's output: the bicubic enlargement of its input, or nothing.
        centre: what is taken off the network's input, but not off the skip's; beyond the border the network then
            sees this grey, and not black.
        views: in how many ways the network sees an image, 1 to 8: turned by 0, 90, 270 and 180 degrees, then the same
            flipped. Its output is the mean, each turned back. That costs as many times the multiply-adds, and no
            weights.
        symmetry: the rotations (p4), or rotations and flips (p4m), among which its layers share their weights (see
            `upsweep.blocks.symmetry`). Turning the input then turns the output, exactly.

    Moving the input by `stride` LR pixels only moves the output; it is more than 1 where a network pools.

    The architectures also take a `recipe` (init, activation, norm, dropout, upsampler), many a `width` (channels of the
    features) and a `depth`. Their docstrings name what is their own; where they are silent, defaults are the paper's.
    All raise UserError for a scale or a number of channels that they cannot make.
    """

    input_name: ClassVar[str] = "lr"
    output_name: ClassVar[str] = "sr"
    scales: tuple[int, ...] = (2, 3, 4, 8)
    stride: int = 1

    def __init__(
        self,
        scale: int,
        channels: int,
        skip: Skip = "none",
        centre: float = 0.0,
        views: int = 1,
        symmetry: Symmetry = "none",
    ) -> None:
        super().__init__(channels)
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise UserError(f"{type(self).__name__} cannot enlarge scale={scale} times: choose one of {known}.")
        if skip not in get_args(Skip):
            raise UserError(f"generator.skip={skip} must be one of {', '.join(get_args(Skip))}.")
        if isinstance(centre, bool) or not isinstance(centre, int | float) or not math.isfinite(centre):
            raise UserError(f"generator.centre={centre} must be a number.")
        if type(views) is not int or not 1 <= views <= len(TURNS):
            raise UserError(f"generator.views={views} must be a whole number from 1 to {len(TURNS)}.")
        if symmetry not in ORDER:
            raise UserError(f"generator.symmetry={symmetry} must be one of {', '.join(ORDER)}.")
        if 1 < views <= ORDER[symmetry]:
            raise UserError(
                f"generator.views={views} adds nothing to generator.symmetry={symmetry}, which turns with its image: "
                "leave one of them out."
            )
        self.scale, self.skip, self.centre, self.views, self.symmetry = scale, skip, centre, views, symmetry

    def initialise(self, recipe: Recipe, last: nn.Module | None = None) -> None:
        super().initialise(recipe, last)
        share(self, self.symmetry, last)

    def body(self, x: Tensor) -> Tensor:
        """The network itself, (N, C, H, W) -> (N, C, s H, s W): its parts in the order in which `__init__` set them."""
        for part in self.children():
            x = part(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """LR images (N, C, H, W) in [0, 1] -> SR images (N, C, s H, s W), not clipped."""
        y = mean_over(TURNS[: self.views], self.body, x - self.centre if self.centre else x)
        return y + enlarge(x, self.scale) if self.skip == "bicubic" else y

    @property
    def called(self) -> str:
        """What sentences call it: its class, or that of the network inside."""
        return type(self).__name__

    @property
    def distinct(self) -> tuple[int, ...]:
        """Those of TURNS that make a difference: turning the input in any other way turns the output like one of them.

        The first 4 of TURNS, and all 8, are groups, so that the mean over them turns with the image.
        """
        group = max(ORDER[self.symmetry], self.views if self.views in (4, 8) else 1)
        return TURNS[::group]

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """SR images of every level that can be supervised, smallest first; the last is `self(x)`."""
        return [self(x)]


def upsampling(recipe: Recipe, width: int, scale: int) -> nn.Sequential:
    """Blocks of upsamplers that enlarge features (N, width, H, W) step by step up to the scale, for the last layer."""
    strides = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]
    layers = [recipe.upsampler.layer(width, width, stride) for stride in strides]
    return nn.Sequential(*(Block(layer, width, recipe, before_last=layer is layers[-1]) for layer in layers))
