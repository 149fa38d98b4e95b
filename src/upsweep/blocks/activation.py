"""Activations: making one from its factory, and the gain that keeps a signal's power through it."""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError


class PReLU(nn.PReLU):
    """Parametric ReLU (He et al. 2015) with one slope a channel, as FSRCNN has it, or one for all (`shared`: SRResNet).

    `slope` is where the slope for negative inputs starts.
    """

    def __init__(self, channels: int, slope: float = 0.25, shared: bool = False) -> None:
        super().__init__(num_parameters=1 if shared else channels, init=slope)


def make(factory: Callable[..., nn.Module], channels: int) -> nn.Module:
    """A new activation; `channels` is passed where the factory has a parameter of that name."""
    if "channels" in inspect.signature(factory).parameters:
        return factory(channels=channels)
    return factory()


def gain(factory: Callable[..., nn.Module]) -> float:
    """1 / sqrt(E[f(z)^2]) for z ~ N(0, 1): the factor on a layer's weights that undoes the activation f.

    It is sqrt(2) for ReLU (He et al. 2015, eq. 10) and holds for any element-wise f, those that
    `torch.nn.init.calculate_gain` does not know included. By the trapezoidal rule, to 1e-6.
    """
    with torch.no_grad(), torch.device("cpu"):  # also where a network is built on the meta device
        z = torch.linspace(-12.0, 12.0, 20_001, dtype=torch.float64)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        f: Tensor = make(factory, channels=1).double().eval()(z.view(1, 1, -1, 1)).flatten()
    power = torch.trapezoid(f.square() * density, z).item()
    if not (math.isfinite(power) and power > 0):
        raise UserError(f"There is no gain for {factory}: E[f(z)^2] is {power}; choose init.gain=1.")
    return 1 / math.sqrt(power)
