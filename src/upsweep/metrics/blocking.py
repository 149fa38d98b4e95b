"""PSNR-B of planes whose border was cut off."""

from typing import Any

from torch import Tensor
from torchmetrics.image import PeakSignalNoiseRatioWithBlockedEffect


class PSNRB(PeakSignalNoiseRatioWithBlockedEffect):
    """PSNR-B (Yim and Bovik 2011): PSNR in dB that pays for edges between JPEG's blocks of 8x8; values in [0, 1].

    Blocks begin at the corner of an image. Where a border was shaved, as most protocols do, the rows and columns above
    and left of the next block are left out too: else edges are looked for where there are none, and PSNR is found.

    Args:
        scale: of the protocol's planes.
        shave: pixels that the protocol cuts from every border; None for the scale.
    """

    def __init__(self, scale: int, shave: int | None = None, **kwargs: Any) -> None:
        super().__init__(data_range=1.0, **kwargs)
        self.first = -(scale if shave is None else shave) % self.block_size

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add two grey images or batches (N, 1, H, W)."""
        preds, target = (x[..., self.first :, self.first :] for x in (preds, target))
        super().update(preds, target)
