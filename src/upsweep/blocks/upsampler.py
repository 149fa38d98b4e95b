"""Upsamplers: (N, C, H, W) -> (N, C', s H, s W) with learned weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from upsweep.blocks.conv import SubPixelConv2d, conv
from upsweep.blocks.deconv import Deconv2d, Form
from upsweep.common.checks import hold_to_literals
from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge


class Upsampler(ABC):
    """How features are enlarged: a factory of layers."""

    def __post_init__(self) -> None:
        hold_to_literals("upsampler", self)

    @abstractmethod
    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """A new layer (N, in_channels, H, W) -> (N, out_channels, stride H, stride W).

        `kernel` and `padding` are the generator's wish (FSRCNN: 9 and 4), in HR pixels; a value in the config goes
        first, and an upsampler that does not deconvolve does not follow the wish.
        """


@dataclass(frozen=True)
class Deconv(Upsampler):
    """Transposed convolution (Zeiler et al. 2010; Dumoulin and Visin 2016).

    Attributes:
        kernel: side of the kernel; None: the generator's wish, else twice the stride (3 at stride 1), a multiple
            of the stride, so that the overlap is even (Odena et al. 2016).
        multiple: the kernel as a multiple of the stride instead, whatever that is; at stride 1 it says nothing.
        padding: None: the generator's wish, else the one that centres the kernel.
        form: how it runs, which changes neither its weights nor its output (see `upsweep.blocks.deconv.TwoForms`).
    """

    kernel: int | None = None
    multiple: int | None = None
    padding: int | None = None
    form: Form = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel is not None and self.multiple is not None:
            raise UserError("upsampler.kernel and upsampler.multiple both set the kernel: leave one of them empty.")

    def layer(
        self, in_channels: int, out_channels: int, stride: int, kernel: int | None = None, padding: int | None = None
    ) -> nn.Module:
        """Raises UserError: no output padding makes the size come out (kernel below the stride, padding too large)."""
        if self.kernel is not None:
            kernel, padding = self.kernel, None
        elif self.multiple is not None and stride > 1:
            kernel, padding = self.multiple * stride, None
        elif kernel is None:
            kernel = 2 * stride if stride > 1 else 3
        if self.padding is not None:
            padding = self.padding
        elif padding is None:  # centre the kernel on its input pixel, as nearly as whole numbers allow
            padding = max(0, -(-(kernel - stride) // 2))
        output_padding = stride - kernel + 2 * padding
        if kernel < stride or not 0 <= output_padding < stride:
            raise UserError(
                f"A deconvolution of kernel {kernel} and padding {padding} cannot enlarge exactly {stride} times: set "
                f"upsampler.kernel to at least {stride} (odd at stride 1), and leave upsampler.padding empty."
            )
        return Deconv2d(in_channels, out_channels, kernel, stride, padding, output_padding, form=self.form)


@dataclass(frozen=True)
class SubPixel(Upsampler):
    """Convolution to stride^2 times the channels, then pixel shuffle (ESPCN, Shi et al. 2016)."""

    kernel: int = 3

    def layer(self, in_channels: int, out_channels: int, stride: int, *_: object, **__: object) -> nn.Module:
        return SubPixelConv2d(in_channels, out_channels, self.kernel, stride)


class Enlarge(nn.Module):
    """Interpolation by a whole factor, (N, C, H, W) -> (N, C, s H, s W): nearest, bilinear, or MATLAB's bicubic."""

    def __init__(self, stride: int, mode: str) -> None:
        super().__init__()
        self.stride, self.mode = stride, mode

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "bicubic":
            return enlarge(x, self.stride)
        return nn.functional.interpolate(x, scale_factor=self.stride, mode=self.mode)

    def extra_repr(self) -> str:
        return f"stride={self.stride}, mode={self.mode}"


@dataclass(frozen=True)
class Resize(Upsampler):
    """Interpolation, then convolution: the remedy of Odena et al. 2016 against checkerboards."""

    kernel: int = 3
    mode: Literal["nearest", "bilinear"] = "nearest"

    def layer(self, in_channels: int, out_channels: int, stride: int, *_: object, **__: object) -> nn.Module:
        return nn.Sequential(Enlarge(stride, self.mode), conv(in_channels, out_channels, self.kernel))


@dataclass(frozen=True)
class FixedBicubic(Upsampler):
    """Bicubic interpolation, with nothing to learn but, where the number of channels changes, a 1x1 convolution.

    The convolution comes first, where there are fewer pixels; the two commute.
    """

    def layer(self, in_channels: int, out_channels: int, stride: int, *_: object, **__: object) -> nn.Module:
        resize = Enlarge(stride, "bicubic")
        return resize if in_channels == out_channels else nn.Sequential(conv(in_channels, out_channels, 1), resize)
