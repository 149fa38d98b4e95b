"""PSNR and SSIM under a protocol."""

from upsweep.metrics.metric import PSNR, SSIM
from upsweep.metrics.protocol import Protocol

__all__ = ["PSNR", "SSIM", "Protocol"]
