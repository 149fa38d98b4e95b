"""PSNR and SSIM of a set of images, as torchmetrics Metrics: per image, then the mean; never pooled."""

import math
from abc import abstractmethod
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from upsweep.common.errors import UserError
from upsweep.metrics.functional import psnr, ssim
from upsweep.metrics.protocol import Protocol

MAX_PSNR = 100.0
_UNIT = 1e-9


class MeanOverImages(Metric):
    """The mean over images of a figure that a subclass takes of each, under a protocol.

    The sum is held in whole billionths: integers add up exactly in any order, so that one device and several
    give the same mean to the last bit, and they exist on mps, where float64 does not.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    count: Tensor
    unknown: Tensor

    def __init__(self, protocol: Protocol, scale: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol, self.scale = protocol, scale
        self.last = torch.empty(0, dtype=torch.float64)  # the figures of the latest update, (N,), for captions
        self.add_state("total", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("unknown", torch.tensor(0, dtype=torch.int64), dist_reduce_fx="sum")  # images with no figure

    @abstractmethod
    def figure(self, sr: Tensor, hr: Tensor) -> Tensor:
        """Give the scalar figure of one image's planes (C, H, W), float64 in 0..255."""

    def update(self, sr: Tensor, hr: Tensor, grey: bool = False) -> None:
        """Add the images of a batch: sr and hr (N, C, H, W) in [0, 1]; `grey` as in `Protocol.planes`."""
        if sr.shape != hr.shape:
            raise ValueError(f"SR {tuple(sr.shape)} and HR {tuple(hr.shape)} differ in shape")
        planes = partial(self.protocol.planes, scale=self.scale, grey=grey)
        self.last = torch.stack([self.figure(planes(a), planes(b)) for a, b in zip(sr, hr, strict=True)])
        known = self.last[self.last.isfinite()]
        self.total += (known / _UNIT).round().long().sum().to(self.total.device)
        self.count += len(self.last)
        self.unknown += len(self.last) - len(known)

    def compute(self) -> Tensor:
        """Give the mean over all images, a float64 scalar on the CPU; nan where an image has no finite figure.

        Raises UserError: there are no images.
        """
        if self.count == 0:
            raise UserError(f"{type(self).__name__} of no images: the validation set is empty")
        if self.unknown:
            return torch.tensor(math.nan, dtype=torch.float64)
        return torch.tensor(self.total.item() * _UNIT / self.count.item(), dtype=torch.float64)


class PSNR(MeanOverImages):
    """Mean PSNR in dB. An image counts at most 100 dB, lest a single blank one make the mean infinite."""

    def figure(self, sr: Tensor, hr: Tensor) -> Tensor:
        return psnr(sr, hr).clamp(max=MAX_PSNR)


class SSIM(MeanOverImages):
    """Mean SSIM."""

    def figure(self, sr: Tensor, hr: Tensor) -> Tensor:
        return ssim(sr, hr)
