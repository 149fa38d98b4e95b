"""Devices by name. The functions import torch."""

from typing import TYPE_CHECKING

from upsweep.common.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn


def device_of(name: str) -> "torch.device":
    """The device of that name, or with auto the best there is: cuda, mps or cpu.

    Raises:
        UserError: this machine has no such device.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise UserError(f"device={name} cannot be used on this machine; device=auto takes the best one.") from error
    return device


def device_holding(module: "nn.Module") -> "torch.device":
    """The device of a module's weights; the CPU for a module without weights."""
    import torch

    return next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
