"""The deconvolution, and the sub-pixel convolution that it equals.

A transposed convolution of stride s adds x[i] w[t] to y[s i + t - p]. Take its output by phases, y[s q + r] with
0 <= r < s: each phase is an ordinary convolution of x with every s-th tap of w, t = p + r + s j. All phases together
are one convolution to s^2 times the channels and a pixel shuffle (Shi et al. 2016, "Is the deconvolution layer the
same as a convolutional layer?"): the same weights in another order, with zeros where a phase has fewer taps.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["auto", "deconv", "subpixel", "blocks"]
Pair = tuple[int, int]

FEW_CHANNELS = 4  # output channels up to which the sub-pixel form of a deconvolution is faster
FEW_PHASES = 4  # channels up to which the equal convolution is faster in blocks


class Phases(NamedTuple):
    """One axis of a deconvolution, by phases: how many taps each has, and what must be padded and cropped."""

    taps: int  # of the equal convolution
    weight: Pair  # zeros (before, after) the kernel's taps that make every phase have as many
    input: Pair  # zeros (before, after) the input; where negative, pixels to crop
    crop: Pair  # pixels to crop from the output (before, after)


def phases(kernel: int, stride: int, padding: int, output_padding: int) -> Phases:
    """Sort one axis of a deconvolution into its phases."""

    def reach(shift: int) -> Pair:
        # Where phase 0 begins `shift` pixels before the output, tap t = p - shift + r + s j meets x[q - j]: j runs
        # from the first that phase s - 1 has to the last that phase 0 has.
        return -((padding - shift + stride - 1) // stride), (kernel - 1 - padding + shift) // stride

    # No phase can do with fewer taps than this; a shift of p mod s reaches it, at the cost of a crop.
    taps = -(-kernel // stride)
    shift, (first, last) = 0, reach(0)
    if last - first + 1 > taps:
        shift = padding % stride
        first, last = reach(shift)
    start = padding - shift + stride * first  # of the padded weight, as a tap of the kernel
    more = shift + kernel + output_padding - 2 * padding - stride  # with `shift`, the output is s times x, and this
    return Phases(
        taps=taps,
        weight=(-start, start + stride * taps - kernel),
        input=(last, -(-more // stride) - first),
        crop=(shift, -more % stride),
    )


def subpixel_weight(weight: Tensor, axis: Phases, stride: int, groups: int = 1) -> Tensor:
    """A deconvolution's weight (I, O / g, k, k) as the equal convolution's (O s^2, I / g, taps, taps).

    The channels are in pixel-shuffle order. Differentiable; a constant in an exported network.
    """
    padded = F.pad(weight, axis.weight * 2)
    by_phase = padded.reshape(groups, -1, weight.shape[1], axis.taps, stride, axis.taps, stride)
    by_phase = by_phase.flip(3, 5).permute(0, 2, 4, 6, 1, 3, 5)  # flipped: a convolution runs over x[q + j]
    return by_phase.reshape(-1, weight.shape[0] // groups, axis.taps, axis.taps)


def in_blocks(kernel: Tensor, stride: int, side: int) -> Tensor:
    """An equal convolution's weight (O s^2, I, t, t) as one (O s^2 m^2, I, t + m - 1, t + m - 1) of stride m.

    It makes `side` = m times m input pixels' outputs at once, in the order of a pixel shuffle by m s: the same taps,
    shifted for every pixel of the block, with zeros around them.
    """
    kernel = kernel.reshape(-1, stride, stride, *kernel.shape[1:])
    shifts = [(before, side - 1 - before) for before in range(side)]
    rows = [torch.stack([F.pad(kernel, (*across, *down)) for across in shifts], dim=2) for down in shifts]
    blocks = torch.stack(rows, dim=1)  # (O, m, s, m, s, I, t + m - 1, t + m - 1)
    return blocks.reshape(-1, *blocks.shape[5:])


def deconv_as_subpixel(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    output_padding: int,
    groups: int = 1,
    block: int = 1,
) -> Tensor:
    """`F.conv_transpose2d` (square, undilated) as a convolution and a pixel shuffle: (N, I, H, W) -> (N, O, H', W').

    With a `block` of m, and no groups, the convolution has a stride of m and m^2 times the channels. It multiplies by
    more zeros, and where there are few channels is faster all the same: a vector unit is then filled.
    """
    axis = phases(weight.shape[-1], stride, padding, output_padding)
    kernel = subpixel_weight(weight, axis, stride, groups)
    (before, after), more = axis.input, [0, 0]
    if block > 1:
        kernel = in_blocks(kernel, stride, block)
        # Whole blocks only: what is added here is cropped below.
        more = [-(size + before + after - axis.taps + 1) % block for size in x.shape[-2:]]
    if bias is not None:
        bias = bias.repeat_interleave(kernel.shape[0] // bias.shape[0])
    bottom, right = (after + extra for extra in more)
    if before == bottom == right >= 0:
        y = F.conv2d(x, kernel, bias, stride=block, padding=before, groups=groups)
    else:
        y = F.conv2d(F.pad(x, (before, right, before, bottom)), kernel, bias, stride=block, groups=groups)
    y = F.pixel_shuffle(y, block * stride)
    start = axis.crop[0]
    bottom, right = (axis.crop[1] + extra * stride for extra in more)
    if any((start, bottom, right)):
        y = y[..., start : y.shape[-2] - bottom, start : y.shape[-1] - right]
    return y


class TwoForms(nn.Module):
    """A module that deconvolves, in the form that is faster.

    `form`, which may change at any time, is deconv (torch's own), subpixel (the equal convolution), blocks (that in
    blocks of 2 x 2), or auto.
    """

    form: Form = "auto"

    def prefers_subpixel(self, x: Tensor, out_channels: int, stride: int) -> bool:
        """Whether `x` is to go through the equal convolution."""
        if self.form == "auto":
            # benchmarks/deconv_form.md: with few output channels torch's own form leaves the processor's vectors
            # half empty (with 3 or 4, training is a draw); with many it wins. Other devices were not measured.
            return x.device.type == "cpu" and stride > 1 and out_channels <= FEW_CHANNELS
        return self.form != "deconv"


class Deconv2d(TwoForms, nn.ConvTranspose2d):
    """`nn.ConvTranspose2d` (without dilation), its parameters and `state_dict`, run in the form that is faster."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        groups: int = 1,
        bias: bool = True,
        *,
        form: Form = "auto",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, output_padding, groups, bias)
        self.form: Form = form
        pairs: Any = (self.kernel_size, self.stride, self.padding, self.output_padding)
        self.square = all(len(set(pair)) == 1 for pair in pairs)  # as the sub-pixel form needs it

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W'), H' = (H - 1) s - 2 p + k + output padding."""
        if (
            not self.square
            or output_size is not None
            or not self.prefers_subpixel(input, self.out_channels, self.stride[0])
        ):
            return super().forward(input, output_size)
        padding, block = int(self.padding[0]), 2 if self.in_blocks(input) else 1
        sizes = self.stride[0], padding, self.output_padding[0]
        return deconv_as_subpixel(input, self.weight, self.bias, *sizes, self.groups, block)

    def in_blocks(self, x: Tensor) -> bool:
        """Whether the equal convolution of `x` is to work in blocks of 2 x 2."""
        # What is compiled, exported or traced must fit other sizes: how many pixels fill whole blocks depends on them.
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if self.groups > 1 or torch.compiler.is_compiling() or tracing:
            return False
        if self.form != "auto":
            return self.form == "blocks"
        # benchmarks/deconv_blocks.md: faster in inference, with FSRCNN's five taps a phase and not with two.
        few, long = self.out_channels * self.stride[0] ** 2 <= FEW_PHASES, self.kernel_size[0] > 4 * self.stride[0]
        return few and long and not torch.is_grad_enabled() and x.device.type == "cpu"


def run_as(network: nn.Module, form: Form) -> None:
    """Set the form of every deconvolution of `network`, in place."""
    for module in network.modules():
        if isinstance(module, TwoForms):
            module.form = form
