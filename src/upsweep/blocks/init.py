"""Initialisation that knows the true fans of a transposed convolution.

`torch.nn.init` takes fan_in from `weight.size(1) * k * k`, which for `ConvTranspose2d` counts outputs. What
reaches one output pixel, on average over the stride's phases, is `in_channels * k * k / stride**2` numbers;
what one input pixel reaches, and so sums up in the backward pass, is `out_channels * k * k` (for a strided
convolution it is the other way round). For FSRCNN's 9x9 deconvolution (56 -> 1, stride 2) He's deviation is
0.157 by torch's count and 0.042 by the true one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from upsweep.blocks import activation
from upsweep.errors import UserError

Layer = nn.Conv2d | nn.ConvTranspose2d
Factory = Callable[..., nn.Module]


def fans(layer: Layer, count: Literal["effective", "torch"] = "effective") -> tuple[float, float]:
    """(fan_in, fan_out) of a convolution or deconvolution.

    `effective` counts what reaches one output and what one input reaches, on average over the stride's
    phases; `torch` counts as `torch.nn.init` does, from the weight's shape alone.
    """
    area = math.prod(layer.kernel_size)
    if count == "torch":
        return float(layer.weight.size(1) * area), float(layer.weight.size(0) * area)
    fan_in = layer.in_channels // layer.groups * area
    fan_out = layer.out_channels // layer.groups * area
    phases = math.prod(layer.stride)
    if isinstance(layer, nn.ConvTranspose2d):
        return fan_in / phases, float(fan_out)
    return float(fan_in), fan_out / phases


def draw(weight: Tensor, std: float, distribution: Literal["normal", "uniform"]) -> None:
    """Fill `weight` in place with zero-mean numbers of standard deviation `std`."""
    with torch.no_grad():
        if distribution == "normal":
            weight.normal_(0.0, std)
        else:
            weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std)


class Init(ABC):
    """A rule that sets the weights of every convolution and deconvolution of a network; biases become 0."""

    @abstractmethod
    def fill(self, layer: Layer, act: Factory) -> None:
        """Set the weights of one layer of a network whose activation is `act`."""

    def fill_last(self, layer: Layer, act: Factory) -> None:
        """Set the weights of the network's last, linear layer: like the others unless a rule says otherwise."""
        self.fill(layer, act)

    def __call__(self, network: nn.Module, act: Factory, last: nn.Module | None = None) -> None:
        """Initialise `network` in place, in the order of its modules; `last` holds its last layer."""
        of_last = set() if last is None else set(last.modules())
        for module in network.modules():
            if isinstance(module, Layer):
                (self.fill_last if module in of_last else self.fill)(module, act)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


@dataclass(frozen=True)
class Scaled(Init):
    """What Xavier and He share.

    Attributes:
        gain: factor on the standard deviation, or "auto": the one that undoes the activation
            (`upsweep.blocks.activation.gain`; sqrt(2) for ReLU).
        fan: how a deconvolution's fans are counted (see `fans`).
        distribution: normal or uniform, of the same deviation.
    """

    gain: float | Literal["auto"] = 1.0
    fan: Literal["effective", "torch"] = "effective"
    distribution: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        if self.fan not in ("effective", "torch"):
            raise UserError(f"init.fan={self.fan} must be effective or torch.")
        if self.distribution not in ("normal", "uniform"):
            raise UserError(f"init.distribution={self.distribution} must be normal or uniform.")
        if self.gain != "auto" and not (isinstance(self.gain, int | float) and self.gain > 0):
            raise UserError(f"init.gain={self.gain} must be auto or a number above 0.")

    @abstractmethod
    def spread(self, fan_in: float, fan_out: float) -> float:
        """The fan by which the variance is divided."""

    def std(self, layer: Layer, act: Factory) -> float:
        """The standard deviation of the layer's weights."""
        gain = activation.gain(act) if self.gain == "auto" else float(self.gain)
        return gain / math.sqrt(self.spread(*fans(layer, self.fan)))

    def fill(self, layer: Layer, act: Factory) -> None:
        """Draw the weights with deviation `std`."""
        draw(layer.weight, self.std(layer, act), self.distribution)


@dataclass(frozen=True)
class Xavier(Scaled):
    """Glorot and Bengio 2010, eq. 12: variance gain^2 * 2 / (fan_in + fan_out)."""

    distribution: Literal["normal", "uniform"] = "uniform"

    def spread(self, fan_in: float, fan_out: float) -> float:
        """The mean of both fans."""
        return (fan_in + fan_out) / 2


@dataclass(frozen=True)
class He(Scaled):
    """He et al. 2015, eq. 10 and 14: variance gain^2 / fan_in (signals) or gain^2 / fan_out (gradients)."""

    gain: float | Literal["auto"] = "auto"
    mode: Literal["fan_in", "fan_out"] = "fan_in"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("fan_in", "fan_out"):
            raise UserError(f"init.mode={self.mode} must be fan_in or fan_out.")

    def spread(self, fan_in: float, fan_out: float) -> float:
        """The fan that `mode` names."""
        return fan_in if self.mode == "fan_in" else fan_out


@dataclass(frozen=True)
class HeSmallLast(He):
    """He's rule, but N(0, last_std^2) in the last layer, as FSRCNN's deconvolution starts (Dong et al. 2016)."""

    last_std: float = 0.001

    def fill_last(self, layer: Layer, act: Factory) -> None:
        """Draw the last layer's weights with deviation `last_std`."""
        del act
        draw(layer.weight, self.last_std, "normal")
