"""The deconvolution, and the sub-pixel convolution that it equals.

A transposed convolution of stride s adds x[i] w[t] to y[s i + t - p]. Take its output by phases, y[s q + r] with
0 <= r < s: each phase is an ordinary convolution of x with every s-th tap of w, t = p + r + s j. All phases together
are one convolution to s^2 times the channels and a pixel shuffle (Shi et al. 2016, "Is the deconvolution layer the
same as a convolutional layer?"): the same weights in another order, with zeros where a phase has fewer taps.
"""

from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["auto", "deconv", "subpixel", "blocks"]
Pair = tuple[int, int]

FEW_CHANNELS = 4  # so many output channels a deconvolution may have for its sub-pixel form to be faster
FEW_PHASES = 4  # so many channels the equal convolution may have for it to be faster in blocks


class Phases(NamedTuple):
    """One axis of a deconvolution, by phases: how many taps each has, and what must be padded and cropped.

    Attributes:
        taps: of the equal convolution.
        weight: zeros (before, after) the kernel's taps that make every phase have as many.
        input: zeros (before, after) the input; where negative, pixels to crop.
        crop: pixels to crop from the output (before, after).
    """

    taps: int
    weight: Pair
    input: Pair
    crop: Pair


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


def subpixel_weight(weight: Tensor, rows: Phases, columns: Phases, stride: Pair, groups: int = 1) -> Tensor:
    """A deconvolution's weight (I, O / g, k, l) as the equal convolution's (O s s', I / g, taps, taps').

    The channels are in pixel-shuffle order. Differentiable; a constant in an exported network.
    """
    padded = F.pad(weight, columns.weight + rows.weight)  # F.pad begins with the last axis
    by_phase = padded.reshape(groups, -1, weight.shape[1], rows.taps, stride[0], columns.taps, stride[1])
    by_phase = by_phase.flip(3, 5).permute(0, 2, 4, 6, 1, 3, 5)  # flipped: a convolution runs over x[q + j]
    return by_phase.reshape(-1, weight.shape[0] // groups, rows.taps, columns.taps)


def in_blocks(kernel: Tensor, stride: Pair, side: int) -> Tensor:
    """An equal convolution's weight (O s s', I, t, t') as one (O s s' m^2, I, t + m - 1, t' + m - 1) of stride m.

    It makes `side` = m times m input pixels' outputs at once, in the order of a pixel shuffle by m s: the same taps,
    shifted for every pixel of the block, with zeros around them.
    """
    kernel = kernel.reshape(-1, *stride, *kernel.shape[1:])
    shifts = [(before, side - 1 - before) for before in range(side)]
    rows = [torch.stack([F.pad(kernel, (*across, *down)) for across in shifts], dim=2) for down in shifts]
    blocks = torch.stack(rows, dim=1)  # (O, m, s, m, s', I, t + m - 1, t' + m - 1)
    return blocks.reshape(-1, *blocks.shape[5:])


def deconv_as_subpixel(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Pair,
    padding: Pair,
    output_padding: Pair,
    groups: int = 1,
    block: int = 1,
) -> Tensor:
    """`F.conv_transpose2d` (without dilation) as a convolution and a pixel shuffle: (N, I, H, W) -> (N, O, H', W').

    With a `block` of m, and no groups, the convolution has a stride of m and m^2 times the channels. It multiplies by
    more zeros, and where there are few channels is faster all the same: a vector unit is then filled.
    """
    rows, columns = (phases(*axis) for axis in zip(weight.shape[2:], stride, padding, output_padding, strict=True))
    kernel = subpixel_weight(weight, rows, columns, stride, groups)
    if block > 1:
        kernel = in_blocks(kernel, stride, block)
    if bias is not None:
        bias = bias.repeat_interleave(kernel.shape[0] // bias.shape[0])
    (top, bottom), (left, right) = rows.input, columns.input
    more_rows = more_columns = 0
    if block > 1:  # whole blocks only: what is added here is cropped below
        more_rows = -(x.shape[-2] + top + bottom - rows.taps + 1) % block
        more_columns = -(x.shape[-1] + left + right - columns.taps + 1) % block
        bottom, right = bottom + more_rows, right + more_columns
    if top == bottom >= 0 and left == right >= 0:
        y = F.conv2d(x, kernel, bias, stride=block, padding=(top, left), groups=groups)
    else:
        y = F.conv2d(F.pad(x, (left, right, top, bottom)), kernel, bias, stride=block, groups=groups)
    y = _shuffle(y, (block * stride[0], block * stride[1]))
    (top, bottom), (left, right) = rows.crop, columns.crop
    bottom, right = bottom + more_rows * stride[0], right + more_columns * stride[1]
    if any((top, bottom, left, right)):
        y = y[..., top : y.shape[-2] - bottom, left : y.shape[-1] - right]
    return y


def _shuffle(x: Tensor, stride: Pair) -> Tensor:
    """`F.pixel_shuffle`, also where rows and columns have different strides."""
    rows, columns = stride
    if rows == columns:
        return F.pixel_shuffle(x, rows)
    n, channels, height, width = x.shape
    y = x.reshape(n, channels // (rows * columns), rows, columns, height, width).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(n, channels // (rows * columns), height * rows, width * columns)


class TwoForms(nn.Module):
    """A module that deconvolves, in the form that is faster.

    Attributes:
        form: deconv (torch's own), subpixel (the equal convolution), blocks (that in blocks of 2 x 2), or auto; may be
            changed at any time.
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

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W'), H' = (H - 1) s - 2 p + k + output padding."""
        if output_size is not None or not self.prefers_subpixel(input, self.out_channels, max(self.stride)):
            return super().forward(input, output_size)
        stride, padding, more = (cast(Pair, pair) for pair in (self.stride, self.padding, self.output_padding))
        block = 2 if self.in_blocks(input) else 1
        return deconv_as_subpixel(input, self.weight, self.bias, stride, padding, more, self.groups, block)

    def in_blocks(self, x: Tensor) -> bool:
        """Whether the equal convolution of `x` is to work in blocks of 2 x 2."""
        # What is compiled, exported or traced must fit other sizes: how many pixels fill whole blocks depends on them.
        if self.groups > 1 or torch.compiler.is_compiling() or _tracing():
            return False
        if self.form != "auto":
            return self.form == "blocks"
        # benchmarks/deconv_blocks.md: faster in inference, with FSRCNN's five taps a phase and not with two.
        few = self.out_channels * self.stride[0] * self.stride[1] <= FEW_PHASES
        long = all(kernel > 4 * stride for kernel, stride in zip(self.kernel_size, self.stride, strict=True))
        return few and long and not torch.is_grad_enabled() and x.device.type == "cpu"


def _tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def run_as(network: nn.Module, form: Form) -> None:
    """Set the form of every deconvolution of `network`, in place."""
    for module in network.modules():
        if isinstance(module, TwoForms):
            module.form = form
