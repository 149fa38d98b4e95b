"""Normalisation of a block's features, or of its weights."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from upsweep.common.checks import at_least, hold_to_literals


@dataclass(frozen=True)
class Norm:
    """No normalisation. The others derive from it: norms of features by `layer`, norms of weights as `WeightsNorm`.

    Norms of features stand in blocks, but never behind the output: at their `place` before the activation (Ioffe and
    Szegedy 2015), or after it.
    """

    place: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        hold_to_literals("norm", self)

    def layer(self, channels: int) -> nn.Module | None:
        """The layer for features of shape (N, channels, H, W), or None where there is nothing to add."""
        return None


@dataclass(frozen=True)
class BatchNorm(Norm):
    """Batch normalisation (Ioffe and Szegedy 2015): statistics over N, H and W, running ones in evaluation."""

    momentum: float = 0.1
    eps: float = 1e-5

    def layer(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)


@dataclass(frozen=True)
class InstanceNorm(Norm):
    """Instance normalisation (Ulyanov et al. 2016): statistics over H and W, so over the whole image in evaluation."""

    eps: float = 1e-5

    def layer(self, channels: int) -> nn.Module:
        return nn.InstanceNorm2d(channels, eps=self.eps, affine=True)  # a learned scale and shift a channel


@dataclass(frozen=True)
class GroupNorm(Norm):
    """Group normalisation (Wu and He 2018): statistics over a group of channels, H and W.

    There are `groups` at most: the largest number is taken that divides both this and the channels.
    """

    groups: int = 8
    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("norm", 1, groups=self.groups)

    def layer(self, channels: int) -> nn.Module:
        return nn.GroupNorm(math.gcd(self.groups, channels), channels, eps=self.eps)


class ChannelNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the channels of each pixel: (N, C, H, W) -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


@dataclass(frozen=True)
class LayerNorm(Norm):
    """Layer normalisation (Ba et al. 2016) over the channels of each pixel: no pixel sees another, nor the batch."""

    eps: float = 1e-6

    def layer(self, channels: int) -> nn.Module:
        return ChannelNorm(channels, eps=self.eps)


@dataclass(frozen=True)
class WeightsNorm(Norm, ABC):
    """A normalisation of weights: of every convolution and deconvolution, the first and the last ones included.

    Layers that no rule of the recipe reaches, such as the image branch of LapSRN, stay as they are. `covers` chooses
    all layers, or only those of blocks with a norm, as in checkpoints up to format 1.
    """

    covers: Literal["all", "blocks"] = "all"

    @abstractmethod
    def parametrise(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        """Parametrise the layer's weights, in place."""


@dataclass(frozen=True)
class WeightNorm(WeightsNorm):
    """Weight normalisation (Salimans and Kingma 2016): length and direction of each output channel's kernel apart.

    What a rule of initialisation says holds for the weights that the two make up.
    """

    def parametrise(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        # A deconvolution's weight is (in, out, k, k).
        parametrizations.weight_norm(layer, dim=1 if isinstance(layer, nn.ConvTranspose2d) else 0)


@dataclass(frozen=True)
class SpectralNorm(WeightsNorm):
    """Spectral normalisation (Miyato et al. 2018): weights over their largest singular value, as a matrix by output.

    It takes out whatever scale a rule of initialisation chose, a small last layer's too. In each training step it makes
    so many `iterations` of the power method.
    """

    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("norm", 1, iterations=self.iterations)

    def parametrise(self, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
        parametrizations.spectral_norm(layer, n_power_iterations=self.iterations)
