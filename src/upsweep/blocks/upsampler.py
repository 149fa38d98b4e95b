"""Upsamplers: (N, C, H, W) -> (N, C', s H, s W) with learned weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from upsweep.blocks.conv import conv
from upsweep.errors import UserError


class Upsampler(ABC):
    """How features are enlarged: a factory of layers."""

    @abstractmethod
    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """A new layer (N, in_channels, H, W) -> (N, out_channels, stride H, stride W).

        `kernel` and `padding` are the generator's wish (FSRCNN: 9 and 4); a value in the config goes first,
        and an upsampler whose kernel means something else does not follow the wish.
        """


def deconv_padding(kernel: int, stride: int) -> int:
    """The padding that centres a deconvolution's kernel on its input pixel, as nearly as whole numbers allow."""
    return max(0, -(-(kernel - stride) // 2))


@dataclass(frozen=True)
class Deconv(Upsampler):
    """Transposed convolution (Zeiler et al. 2010; Dumoulin and Visin 2016).

    Attributes:
        kernel: side of the kernel; None: the generator's wish, else twice the stride (3 at stride 1), a multiple
            of the stride, so that the overlap is even (Odena et al. 2016).
        padding: None: the generator's wish, else the one that centres the kernel.
    """

    kernel: int | None = None
    padding: int | None = None

    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """A `ConvTranspose2d` whose output is exactly `stride` times its input.

        Raises:
            UserError: no output padding makes the size come out (kernel below the stride, padding too large).
        """
        if self.kernel is not None:
            kernel, padding = self.kernel, None
        if kernel is None:
            kernel = 2 * stride if stride > 1 else 3
        if self.padding is not None:
            padding = self.padding
        if padding is None:
            padding = deconv_padding(kernel, stride)
        output_padding = stride - kernel + 2 * padding
        if kernel < stride or not 0 <= output_padding < stride:
            raise UserError(
                f"upsampler.kernel={kernel} with padding {padding} cannot enlarge exactly {stride} times: take a "
                f"kernel of at least {stride} (odd where that is 1) and leave upsampler.padding empty."
            )
        return nn.ConvTranspose2d(in_channels, out_channels, kernel, stride, padding, output_padding)


@dataclass(frozen=True)
class SubPixel(Upsampler):
    """Convolution to stride^2 times the channels, then pixel shuffle (ESPCN, Shi et al. 2016)."""

    kernel: int = 3

    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """A sequence of `Conv2d` and `PixelShuffle`."""
        del kernel, padding  # a deconvolution's, in HR pixels; this kernel counts LR pixels
        return nn.Sequential(conv(in_channels, out_channels * stride**2, self.kernel), nn.PixelShuffle(stride))


class Enlarge(nn.Module):
    """Nearest or bilinear interpolation by a whole factor."""

    def __init__(self, stride: int, mode: str) -> None:
        super().__init__()
        self.stride, self.mode = stride, mode

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        align = None if self.mode == "nearest" else False
        return nn.functional.interpolate(x, scale_factor=self.stride, mode=self.mode, align_corners=align)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"stride={self.stride}, mode={self.mode}"


@dataclass(frozen=True)
class Resize(Upsampler):
    """Interpolation, then convolution: the remedy of Odena et al. 2016 against checkerboards."""

    kernel: int = 3
    mode: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        if self.mode not in ("nearest", "bilinear"):
            raise UserError(f"upsampler.mode={self.mode} must be nearest or bilinear.")

    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """A sequence of `Enlarge` and `Conv2d`."""
        del kernel, padding  # a deconvolution's
        return nn.Sequential(Enlarge(stride, self.mode), conv(in_channels, out_channels, self.kernel))
