"""Structural similarity as a loss."""

from torch import Tensor, nn

from upsweep.metrics.functional import ssim


class SSIM(nn.Module):
    """1 - SSIM (Wang et al. 2004), by the maths of the metric, on values in [0, 1].

    It knows little of brightness and nothing of colour: weigh it against an L1 (Zhao et al. 2017, `WeightedSum`).
    """

    def forward(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Two batches (N, C, H, W), at least 11x11 (else UserError) -> a scalar in [0, 2]."""
        # In float32 also under autocast: variances are differences of numbers that are nearly equal.
        return 1 - ssim(sr.float(), hr.float(), peak=1.0)
