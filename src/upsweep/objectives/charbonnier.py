"""The Charbonnier loss."""

import torch
from torch import Tensor, nn


class Charbonnier(nn.Module):
    """mean sqrt((sr - hr)^2 + eps^2): L1 without its kink (Charbonnier et al. 1994; LapSRN, Lai et al. 2017).

    `eps`, where the parabola turns into the line, is in units of [0, 1]; LapSRN takes 1e-3.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Two images or batches of one shape -> a scalar."""
        return torch.sqrt((sr - hr).square() + self.eps**2).mean()
