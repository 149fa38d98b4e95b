"""Super-resolution as a task: generators train on patches, and are judged on whole images under a protocol."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.data.degradation import Window
from upsweep.data.store import StoredImage
from upsweep.imaging.resize import enlarge, shrink
from upsweep.imaging.tiles import Panel
from upsweep.metrics.figure import Figure
from upsweep.metrics.metric import PSNR, SSIM, MeanOverImages
from upsweep.metrics.protocol import Protocol
from upsweep.networks.network import Network
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage, PatchData, as_tensor
from upsweep.tasks.super_resolution.judging import bicubic, pair
from upsweep.tasks.super_resolution.patches import Patch
from upsweep.tasks.super_resolution.pictures import comparison
from upsweep.tasks.task import Compared, Task

METRICS: dict[str, type[MeanOverImages]] = {"psnr": PSNR, "ssim": SSIM}
SIDE = 96  # LR pixels of the middle of a training image that are enlarged


class SuperResolution(Task):
    """LR images in, SR images out; the figures, psnr (dB) and ssim or one of them, are taken under the protocol."""

    data: PatchData

    def __init__(
        self, figures: Sequence[Figure | Mapping[str, Any]], data: PatchData, protocol: Protocol | None = None
    ) -> None:
        protocol = protocol or Protocol()
        measures = {name: partial(metric, protocol, data.scale) for name, metric in METRICS.items()}
        super().__init__(figures, data, measures)
        self.protocol = protocol
        self._baselines: dict[str, float] = {}  # of the headline, by image

    def make(self, generator: Network, batch: Patch) -> list[Compared]:
        """SR of every level that the generator supervises, each with HR of that size."""
        return [Compared(sr, level_of(batch.hr, sr.shape[-1])) for sr in _upscaler(generator).pyramid(batch.lr)]

    def judge(self, generator: Network, batch: EvalImage) -> Tensor:
        """Judge one whole image; SR (1, C, H, W) as the generator made it."""
        scale = self.data.scale
        sr: Tensor = generator(batch.lr).float()
        grey = batch.rgb_hr is None
        self.feed(*pair(sr, batch, self.protocol, scale), grey=grey)
        if not self.baseline:
            self.feed_baseline(*pair(bicubic(batch, self.protocol, scale), batch, self.protocol, scale), grey=grey)
            if self.headline.baseline:
                self._baselines[batch.name] = _last(self.baseline_metrics[self.headline.name])
        self._judged = _last(self.metrics[self.headline.name]), self._baselines.get(batch.name)
        return sr

    def last_lead(self) -> float | None:
        value, baseline = self._judged
        return None if baseline is None else self.headline.lead(value, baseline)

    def panel(self, batch: EvalImage, made: Tensor, size: int = 320) -> Panel:
        """LR enlarged bicubically | SR | HR of the image judged last, with the headline of each."""
        value, baseline = self._judged
        return comparison(batch, made, figure=self.headline, value=value, baseline=baseline, size=size)

    def judge_training(self, generator: Callable[[Tensor], Tensor], count: int) -> Iterator[tuple[float, float]]:
        """Of SR of the middle of some training images, each with that of its bicubic enlargement."""
        protocol, scale = self.protocol, self.data.scale
        if protocol.space == "rgb" and self.data.channels == 1:
            protocol = replace(protocol, space="y")  # training images are kept without their colours
        metric = METRICS[self.headline.name](protocol, scale)

        def judged(made: Tensor, hr: Tensor) -> float:
            metric.update(made, hr.to(made.device))
            return _last(metric)

        for lr, hr in crops(self.data.train_images, count):
            yield judged(generator(lr), hr), judged(enlarge(lr, scale), hr)


def _last(metric: Any) -> float:
    return float(metric.last.item())


def _upscaler(generator: Network) -> Upscaler:
    """Raises UserError: the network does not enlarge."""
    if not isinstance(generator, Upscaler):
        raise UserError(
            f"task=super_resolution needs a generator that enlarges (upsweep.networks.upscalers.Upscaler), and "
            f"{type(generator).__name__} does not: choose another generator, or the task it is for."
        )
    return generator


def level_of(hr: Tensor, width: int) -> Tensor:
    """HR (N, C, H, W) shrunk bicubically to `width`: what a level of a pyramid is held to (LapSRN, Lai et al. 2017)."""
    return hr if width == hr.shape[-1] else shrink(hr, hr.shape[-1] // width)


def crops(images: Sequence[StoredImage], count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The middle of `count` of the images: LR (1, C, h, w) and HR (1, C, s h, s w), float32 in [0, 1]."""
    count = min(count, len(images))
    for i in range(count):
        image = images[i * len(images) // count]
        height, width = image.lr.shape[1:]
        scale = image.hr.shape[1] // height
        h, w = min(height, SIDE), min(width, SIDE)
        top, left = (height - h) // 2, (width - w) // 2
        window = Window(top, top + h, left, left + w)
        yield as_tensor(window.of(image.lr))[None], as_tensor(window.times(scale).of(image.hr))[None]
