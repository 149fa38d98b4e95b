"""What exactly is compared: the conventions that decide the second digit of a PSNR."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor

from upsweep.common.checks import at_least, hold_to_literals
from upsweep.common.errors import UserError
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.resize import imresize


@dataclass(frozen=True)
class Protocol:
    """How SR and HR become the planes that PSNR and SSIM compare. The default is what the papers do.

    name: what tables call it.
    space: "y", the luma of BT.601 in studio range; "y_full", the same in full range; "rgb", all channels.
    shave: pixels cut from every border; None for the scale.
    round_y: whether the luma is rounded to whole grey levels.
    lr: how the LR is stored: "double", unrounded, or "uint8", as a file would hold it.
    """

    name: str = "paper"
    space: Literal["y", "y_full", "rgb"] = "y"
    shave: int | None = None
    round_y: bool = True
    lr: Literal["double", "uint8"] = "double"

    def __post_init__(self) -> None:
        hold_to_literals("protocol", self)
        at_least("protocol", 0, shave=self.shave or 0)

    def planes(self, image: Tensor, scale: int, *, grey: bool = False) -> Tensor:
        """Give what is compared of an image (C, H, W) in [0, 1], as float64 in 0..255.

        Gives (1 or 3, H - 2 shave, W - 2 shave). One channel is a luma in studio range, or with `grey` a grey
        image as it is. Three channels are RGB, or with `grey` a grey image that was replicated for an RGB
        generator: their mean then stands for the luma, without studio range. Colours are rounded per channel
        first, as a file would hold them.
        """
        shave = scale if self.shave is None else self.shave
        height, width = image.shape[-2:]
        if min(height, width) <= 2 * shave:
            raise UserError(f"an image of {height}x{width} pixels has nothing left when every border loses {shave}")
        # float64 does not exist on mps.
        image = image.detach().to("cpu" if image.device.type == "mps" else image.device)
        codes = image[..., shave : height - shave, shave : width - shave].double() * 255
        if self.space == "rgb":
            if len(codes) == 1 and not grey:
                raise UserError(
                    f"protocol={self.name} compares RGB, and a luma has none: colour it first, or choose protocol=paper"
                )
            return codes.round().clamp(0, 255)
        if len(codes) == 3:
            codes = codes.round().clamp(0, 255)
            codes = codes.mean(dim=0, keepdim=True) if grey else rgb_to_y(codes / 255) * 255
        if self.space == "y_full" and not grey:
            codes = (codes - 16) * (255 / 219)
        return (codes.round() if self.round_y else codes).clamp(0, 255)

    def low_resolution(self, hr: Tensor, scale: int) -> Tensor:
        """Give the LR of an HR image (..., H, W) in [0, 1] as this protocol stores it."""
        return imresize(hr, Fraction(1, scale), uint8=self.lr == "uint8")
