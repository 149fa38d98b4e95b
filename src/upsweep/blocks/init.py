"""Initialisation that knows the true fans of a transposed convolution.

`torch.nn.init` takes fan_in from `weight.size(1) * k * k`, which for `ConvTranspose2d` counts outputs. What reaches one
output pixel, on average over the stride's phases, is `in_channels * k * k / stride**2` numbers; what one input pixel
reaches, and so sums up in the backward pass, is `out_channels * k * k` (for a strided convolution it is the other way
round). For FSRCNN's 9x9 deconvolution (56 -> 1, stride 2) He's deviation is 0.157 by torch's count, 0.042 by the true.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from upsweep.blocks import activation
from upsweep.blocks.conv import SubPixelConv2d
from upsweep.common.checks import at_least, hold_to_literals
from upsweep.common.errors import UserError
from upsweep.common.names import kind_of
from upsweep.imaging.resize import cubic

Layer = nn.Conv2d | nn.ConvTranspose2d
Factory = Callable[..., nn.Module]
FeatureNorm = nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm
Distribution = Literal["normal", "uniform"]


def fans(layer: Layer, count: Literal["effective", "torch"] = "effective") -> tuple[float, float]:
    """(fan_in, fan_out) of a convolution or deconvolution.

    `effective` counts what reaches one output and what one input reaches, on average over the stride's phases; `torch`
    counts as `torch.nn.init` does, from the weight's shape alone.
    """
    area, phases = math.prod(layer.kernel_size), math.prod(layer.stride)
    if count == "torch":
        return float(layer.weight.size(1) * area), float(layer.weight.size(0) * area)
    fan_in, fan_out = (channels / layer.groups * area for channels in (layer.in_channels, layer.out_channels))
    return (fan_in / phases, fan_out) if isinstance(layer, nn.ConvTranspose2d) else (fan_in, fan_out / phases)


def draw(layer: Layer, std: float, distribution: Distribution) -> Tensor:
    """Zero-mean numbers of standard deviation `std`, in the shape of the layer's weights."""
    weight = torch.empty_like(layer.weight, requires_grad=False)
    if distribution == "normal":
        return weight.normal_(0.0, std)
    return weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std)


def put(layer: Layer, weight: Tensor) -> None:
    """Set a layer's weights without gradients, through its parametrization if it has one."""
    if not parametrize.is_parametrized(layer, "weight"):
        layer.weight.copy_(weight)
        return
    layer.weight = weight.to(layer.weight)  # the parametrization's setter
    # Spectral norm learns of its weight by power iteration, a step each time the weight is read in training.
    training = layer.training
    layer.train()
    for _ in range(15):
        _ = layer.weight
    layer.train(training)


@dataclass(frozen=True, kw_only=True)
class Init(ABC):
    """A rule that sets the weights and biases of every convolution and deconvolution of a network.

    `deconv` is another rule for deconvolutions, `last` one for the network's last layer; `last` goes before `deconv`.
    """

    needs_data: ClassVar[bool] = False
    idle: ClassVar[str] = ""  # the message if no layer of a network `has_own_start`

    deconv: "Init | None" = None
    last: "Init | None" = None

    def __post_init__(self) -> None:
        hold_to_literals("init", self)

    @abstractmethod
    def weight(self, layer: Layer, act: Factory) -> Tensor:
        """New weights for one layer of a network whose activation is `act`."""

    def bias(self, layer: Layer) -> Tensor:
        """New biases for one layer: 0."""
        return torch.zeros(layer.out_channels)

    def norm(self, norm: FeatureNorm) -> None:  # noqa: B027 - for those that derive
        """Set what a norm of features learns, in rules that do; others leave it as the network made it."""

    def adjust(self, layer: Layer, output: Tensor) -> None:  # noqa: B027 - for those that derive
        """Adjust a layer to what it makes of data, in rules that need them."""

    def has_own_start(self, layer: Layer) -> bool:
        """Whether this rule starts `layer` otherwise than the one that it derives from."""
        return True

    def unused(self, network: nn.Module) -> list[str]:
        """The parts of this rule that apply to no layer of `network`, a sentence each."""
        layers = [layer for layer in network.modules() if isinstance(layer, Layer)]
        said = []
        if self.deconv is not None and not any(isinstance(layer, nn.ConvTranspose2d) for layer in layers):
            said.append("init.deconv has no effect: the generator has no deconvolution (upsampler=deconv makes one).")
        if self.idle and not any(map(self.has_own_start, layers)):
            said.append(self.idle)
        return said

    @torch.no_grad()
    def __call__(self, network: nn.Module, act: Factory, last: nn.Module | None = None) -> None:
        """Initialise `network` in place, in the order of its modules; `last` is, or holds, its last layer."""
        for layer, rule in self._rules(network, last):
            if layer.weight.is_meta:  # only the shapes of such a network are used
                continue
            put(layer, rule.weight(layer, act))
            if layer.bias is not None:
                layer.bias.copy_(rule.bias(layer))
        for module in network.modules():
            if isinstance(module, FeatureNorm) and module.weight is not None and not module.weight.is_meta:
                self.norm(module)

    @torch.no_grad()
    def calibrate(self, network: nn.Module, batch: Callable[[], Tensor], last: nn.Module | None = None) -> None:
        """Adjust an initialised `network` in place to a batch of its inputs, if a rule needs data (LSUV).

        `batch` is only called then. The network runs once, in evaluation mode; its layers are adjusted in the order in
        which they run, each to what the adjusted ones before it make.
        """
        rules = {layer: rule for layer, rule in self._rules(network, last) if rule.needs_data}
        if not rules:
            return

        def hook(layer: Layer, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            if layer not in rules:
                return output
            rules.pop(layer).adjust(layer, output)  # a layer that runs twice is adjusted once
            return layer.forward(*inputs)  # which spectral norm, for one, keeps as it was

        hooks = [layer.register_forward_hook(hook) for layer in rules]
        training = network.training
        network.eval()
        network(batch())
        network.train(training)
        for handle in hooks:
            handle.remove()

    def _rules(self, network: nn.Module, last: nn.Module | None) -> list[tuple[Layer, "Init"]]:
        """Every layer, with the rule that it follows."""
        of_last = set() if last is None else set(last.modules())
        return [(m, self._rule(m, m in of_last)) for m in network.modules() if isinstance(m, Layer)]

    def _rule(self, layer: Layer, is_last: bool) -> "Init":
        other = self.last if is_last else None
        if other is None and isinstance(layer, nn.ConvTranspose2d):
            other = self.deconv
        return self if other is None else other._rule(layer, is_last)


@dataclass(frozen=True, kw_only=True)
class Torch(Init):
    """The framework's default, `reset_parameters`: all up to 1 / sqrt(fan_in), by torch's count of the fans."""

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        return draw(layer, 1 / math.sqrt(3 * fans(layer, "torch")[0]), "uniform")

    def bias(self, layer: Layer) -> Tensor:
        bound = 1 / math.sqrt(fans(layer, "torch")[0])
        return torch.empty(layer.out_channels).uniform_(-bound, bound)


@dataclass(frozen=True, kw_only=True)
class Normal(Init):
    """N(0, std^2) whatever the layer, as SRCNN starts, and FSRCNN's deconvolution (Dong et al. 2016).

    The scales of norms of features, which start at 1 (in SRResNet's branches at `residual_gain`), are multiplied with
    numbers of N(1, norm_std^2): DCGAN has 0.02 for both (Radford et al. 2016, and PyTorch's example).
    """

    std: float = 0.001
    norm_std: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("init", 0, std=self.std, norm_std=self.norm_std)

    def norm(self, norm: FeatureNorm) -> None:
        if self.norm_std > 0:  # no random number is drawn for nothing
            norm.weight.mul_(torch.empty_like(norm.weight).normal_(1.0, self.norm_std))

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        return draw(layer, self.std, "normal")


@dataclass(frozen=True, kw_only=True)
class Scaled(Init):
    """The base of rules that choose a deviation by the fans; `fan` says how to count these (see `fans`).

    `gain` is a factor on the deviation, or "auto": what undoes the activation (`activation.gain`; sqrt(2) for ReLU).
    """

    gain: float | Literal["auto"] = "auto"
    fan: Literal["effective", "torch"] = "effective"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain != "auto" and not (isinstance(self.gain, int | float) and self.gain > 0):
            raise UserError(f"init.gain={self.gain} must be auto or a number above 0.")

    def spread(self, fan_in: float, fan_out: float) -> float:
        """The fan by which the variance is divided: fan_in, which keeps the signals' variance."""
        return fan_in

    def std(self, layer: Layer, act: Factory) -> float:
        """The standard deviation of the layer's weights."""
        gain = activation.gain(act) if self.gain == "auto" else float(self.gain)
        return gain / math.sqrt(self.spread(*fans(layer, self.fan)))


@dataclass(frozen=True, kw_only=True)
class He(Scaled):
    """He et al. 2015, eq. 10 and 14: variance gain^2 / fan_in (signals) or gain^2 / fan_out (gradients)."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    distribution: Distribution = "normal"

    def spread(self, fan_in: float, fan_out: float) -> float:
        return fan_in if self.mode == "fan_in" else fan_out

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        return draw(layer, self.std(layer, act), self.distribution)


@dataclass(frozen=True, kw_only=True)
class Xavier(Scaled):
    """Glorot and Bengio 2010, eq. 12 and 16: variance gain^2 * 2 / (fan_in + fan_out)."""

    gain: float | Literal["auto"] = 1.0
    distribution: Distribution = "uniform"

    def spread(self, fan_in: float, fan_out: float) -> float:
        return (fan_in + fan_out) / 2

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        return draw(layer, self.std(layer, act), self.distribution)


@dataclass(frozen=True, kw_only=True)
class ICNR(He):
    """He, but every phase of a sub-pixel convolution starts with the same weights (Aitken et al. 2017).

    It then enlarges as nearest-neighbour interpolation does, after a convolution: no checkerboard at the start.
    """

    idle: ClassVar[str] = "init=icnr does the same as init=he: the generator has no sub-pixel convolution."

    def has_own_start(self, layer: Layer) -> bool:
        return isinstance(layer, SubPixelConv2d)

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        weight = super().weight(layer, act)
        if isinstance(layer, SubPixelConv2d):
            phases = layer.factor**2
            weight = weight[::phases].repeat_interleave(phases, 0)
        return weight


@dataclass(frozen=True, kw_only=True)
class Identity(He):
    """A convolution that keeps its channels starts as x + `noise` times what He's rule makes; all others as He's.

    A residual without a connection of its own: the short residuals of SESR (Bhardwaj et al. 2022, section 3), whose
    collapsed kernels are the identity and what was learned beside it. For chains: where a residual block adds its
    input besides, the signal doubles with every block. A `noise` of 0 is exactly the identity.
    """

    idle: ClassVar[str] = "init=identity does the same as init=he: no convolution of the generator keeps its channels."

    noise: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("init", 0, noise=self.noise)

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        weight = super().weight(layer, act)
        if not self.has_own_start(layer):
            return weight
        return nn.init.dirac_(torch.empty_like(weight), layer.groups) + self.noise * weight

    def has_own_start(self, layer: Layer) -> bool:
        """Whether it can be the identity: a convolution with as many channels out as in, stride 1, odd kernel."""
        return (
            isinstance(layer, nn.Conv2d)
            and not isinstance(layer, SubPixelConv2d)  # its channels become pixels
            and layer.in_channels == layer.out_channels
            and layer.stride == (1, 1)
            and all(side % 2 for side in layer.kernel_size)
        )


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Scaled):
    """Orthonormal kernels (Saxe et al. 2014), times what gives the weights He's deviation.

    A kernel is what makes one output channel, `in_channels * k * k` numbers; where there are more of them than numbers,
    the numbers' vectors are the orthonormal ones.
    """

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        weight = draw(layer, 1.0, "normal")
        if isinstance(layer, nn.ConvTranspose2d):
            weight = nn.init.orthogonal_(weight.transpose(0, 1).contiguous()).transpose(0, 1)
        else:
            nn.init.orthogonal_(weight)
        return weight * (self.std(layer, act) / weight.square().mean().sqrt())


@dataclass(frozen=True, kw_only=True)
class LSUV(Orthogonal):
    """Layer-sequential unit variance (Mishkin and Matas 2016): orthogonal, then scaled by what a batch makes of it.

    `Upscaler.calibrate` does the second part, before the training; without it this is `Orthogonal`.
    """

    needs_data: ClassVar[bool] = True

    def adjust(self, layer: Layer, output: Tensor) -> None:
        """Divide the weights, and so the output, by the output's deviation; UserError where that is 0 or not finite."""
        std = output.std()  # one step is enough, as the layer is linear
        rounding = 1e-6 * output.abs().max().item()  # what the deviation of a constant may come to
        if not rounding < std.item() < math.inf:
            which = f"{kind_of(layer)} of {layer.in_channels} to {layer.out_channels} channels"
            raise UserError(f"init=lsuv cannot scale a {which}: on the batch its output deviates by {std:g}.")
        put(layer, layer.weight / std)


@dataclass(frozen=True, kw_only=True)
class Interpolation(Init):
    """A deconvolution that starts as bilinear or bicubic interpolation (Long et al. 2015), so without checkerboard.

    Output channel o starts as the enlarged mean of the input channels that it divides with: i = o modulo the
    smaller number of channels. Where the kernel is too short for the interpolation (bicubic at stride s takes 4 s
    taps, bilinear 2 s), its phases are normalised, so that a constant stays one.
    """

    kernel: Literal["bilinear", "bicubic"] = "bilinear"

    def weight(self, layer: Layer, act: Factory) -> Tensor:
        """Raises UserError: the layer is not a deconvolution."""
        if not isinstance(layer, nn.ConvTranspose2d):
            raise UserError("Interpolation initialises deconvolutions only: choose it as init.deconv of another rule.")
        rows, columns = (
            interpolation_taps(self.kernel, *axis)
            for axis in zip(layer.kernel_size, layer.stride, cast(tuple[int, int], layer.padding), strict=True)
        )
        into, out = layer.weight.shape[:2]
        i, o = torch.arange(into)[:, None], torch.arange(out)
        share = (i % min(into, out) == o % min(into, out)).double()
        share /= share.sum(0)
        return torch.einsum("io,k,l->iokl", share, rows, columns)


def interpolation_taps(name: Literal["bilinear", "bicubic"], kernel: int, stride: int, padding: int) -> Tensor:
    """One axis of the deconvolution that interpolates: (kernel,) float64; the taps of each phase sum to 1."""
    # Distances in input pixels, whose centres lie half a step in.
    of_pixel = (torch.arange(kernel, dtype=torch.float64) - padding + 0.5) / stride - 0.5
    taps = torch.from_numpy(cubic(of_pixel.numpy())) if name == "bicubic" else (1 - of_pixel.abs()).clamp(min=0)
    for phase in range(stride):
        taps[phase::stride] /= taps[phase::stride].sum()
    return taps
