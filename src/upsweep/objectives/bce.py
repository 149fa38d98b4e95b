"""Binary cross entropy between images."""

import torch.nn.functional as F
from torch import Tensor, nn


class BCE(nn.Module):
    """-(x log y + (1 - x) log(1 - y)), the mean over all values: Bernoulli's likelihood (Kingma and Welling 2014, C.1).

    Made images count as if they were clipped to [0, 1].
    """

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        """Two images or batches of one shape, `wanted` in [0, 1] -> a scalar."""
        # under autocast torch refuses the plain form, in half precision
        return F.binary_cross_entropy(made.float().clamp(0, 1), wanted.float().clamp(0, 1))
