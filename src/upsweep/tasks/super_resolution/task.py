"""Super-resolution as a task: generators train on patches, and are judged on whole images under a protocol."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from upsweep.common.errors import UserError
from upsweep.data.degradation import Window
from upsweep.data.store import StoredImage
from upsweep.imaging.resize import enlarge, level_of
from upsweep.imaging.tiles import Cell, Panel
from upsweep.metrics.figure import Figure
from upsweep.metrics.metric import PSNR, SSIM, MeanOverImages
from upsweep.metrics.own import OfAll, OfEach, Own
from upsweep.metrics.protocol import Protocol
from upsweep.networks.network import Network
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage, PatchData, as_tensor
from upsweep.tasks.super_resolution.judging import bicubic, pair
from upsweep.tasks.super_resolution.pairs import images_in, pair_in
from upsweep.tasks.super_resolution.pictures import comparison, cut, place
from upsweep.tasks.task import Compared, Task

METRICS: dict[str, type[MeanOverImages]] = {"psnr": PSNR, "ssim": SSIM}
SIDE = 96  # LR pixels of the middle of a training image that are enlarged


class SuperResolution(Task):
    """LR images in, SR images out; the figures, psnr (dB) and ssim or one of them, are taken under the protocol.

    Args:
        figures: what results are judged by.
        data: upsweep's `PatchData`, or any LightningDataModule whose batches are (lr, hr), see `pairs.pair_in`; its
            validation gives the same images in the same order every time.
        protocol: the papers' where none is given.
        scale: HR pixels per LR pixel, where the data do not say it.

    Raises:
        UserError: nothing says the scale.
    """

    def __init__(
        self,
        figures: Sequence[Figure | Mapping[str, Any]],
        data: pl.LightningDataModule,
        protocol: Protocol | None = None,
        scale: int | None = None,
    ) -> None:
        protocol, scale = protocol or Protocol(), getattr(data, "scale", scale)
        if scale is None:
            raise UserError("task.scale is missing: how many times larger is an HR image than its LR image?")
        measures = {name: partial(metric, protocol, scale) for name, metric in METRICS.items()}
        super().__init__(figures, data, measures)
        self.protocol, self.scale = protocol, scale
        self._baselines: dict[str, dict[str, float]] = {}  # figures by image
        self._places: dict[str, tuple[int, int]] = {}  # where in an image a table looks
        self._number = 0  # of images that were judged in this validation, where they have no names
        self._known = False  # whether the values of a batch have been looked at

    def make(self, generator: Network, batch: Any) -> list[Compared]:
        """SR of every level that the generator supervises, each with HR of that size."""
        upscaler = _upscaler(generator)
        pair, self._known = pair_in(batch, self.scale, upscaler.channels, known=self._known), True
        return [Compared(sr, level_of(pair.hr, sr.shape[-1])) for sr in upscaler.pyramid(pair.lr)]

    def judge(self, generator: Network, batch: Any) -> Tensor:
        """Judge a batch image by image; SR (1, C, H, W) of the last one, as the generator made it."""
        for image in self._images(generator, batch):
            sr: Tensor = generator(image.lr).float()
            self._judge(sr, image)
        return sr

    def _images(self, generator: Network, batch: Any) -> Iterator[EvalImage]:
        if isinstance(batch, EvalImage):
            yield batch
            return
        pair = pair_in(batch, self.scale, _upscaler(generator).channels)
        yield from images_in(pair, self._number + 1)
        self._number += len(pair.lr)

    def _judge(self, sr: Tensor, image: EvalImage) -> None:
        scale, grey = self.scale, image.rgb_hr is None
        self.feed(*pair(sr, image, self.protocol, scale), grey=grey)
        if not self.baseline:
            self.feed_baseline(*pair(bicubic(image, self.protocol, scale), image, self.protocol, scale), grey=grey)
            self._baselines[image.name] = _of_each(self.baseline_metrics)
        baselines = self._baselines.get(image.name, {})
        self._judged = _last(self.metrics[self.shown.name]), baselines.get(self.shown.name)

    def compute(self) -> dict[str, float]:
        self._number = 0
        return super().compute()

    def adapted(self, name: str, metric: Metric) -> Metric:
        """One that sees what the protocol sees; its figure is the mean over images, or of both sets of them."""
        own = Own(name, metric)
        if own.takes == "sets":
            return OfAll(name, metric, self.protocol, self.scale)
        return OfEach(own, self.protocol, self.scale)

    @property
    def shown(self) -> Figure:
        """The first figure that is taken of each image."""
        measured = (f for f in self.figures if f.name in self.metrics)
        return next(f for f in measured if isinstance(self.metrics[f.name], MeanOverImages))

    def last_lead(self) -> float | None:
        value, baseline = self._judged
        return None if baseline is None else self.shown.lead(value, baseline)

    def panel(self, batch: Any, made: Tensor, size: int = 320) -> Panel:
        """LR enlarged bicubically | SR | HR of the image judged last, with the figure `shown` of each."""
        value, baseline = self._judged
        image = self._judged_last(batch, made)
        return comparison(image, made, figure=self.shown, value=value, baseline=baseline, size=size)

    def row(self, batch: Any, made: Tensor) -> dict[str, Cell]:
        """The name | LR, SR, HR of the place that a panel shows | every figure of that image, and bicubic's."""
        image = self._judged_last(batch, made)
        corner = self._places.get(image.name) or self._places.setdefault(image.name, place(image))
        figures = _of_each(self.metrics)
        baselines = self._baselines.get(image.name, {})
        bicubic = {f"{f.baseline_name}": baselines[f.name] for f in self.figures if f.baseline and f.name in baselines}
        return {"image": image.name, **cut(image, made, corner), **figures, **bicubic}

    def _judged_last(self, batch: Any, made: Tensor) -> EvalImage:
        """The last image of a batch."""
        if isinstance(batch, EvalImage):
            return batch
        given = pair_in(batch, self.scale, made.shape[1], known=True)
        *_, image = images_in(given, self._number - len(given.lr) + 1)
        return image

    def judge_training(self, generator: Callable[[Tensor], Tensor], count: int) -> Iterator[tuple[float, float]]:
        """Of SR of the middle of some training images, each with that of its bicubic enlargement."""
        if not isinstance(self.data, PatchData):  # to look at other data could change what it gives next
            return
        protocol, scale = self.protocol, self.scale
        if protocol.space == "rgb" and self.data.channels == 1:
            protocol = replace(protocol, space="y")  # training images are kept without their colours
        metric = cast(MeanOverImages, self.metrics[self.shown.name].clone())
        metric.protocol = protocol

        def judged(made: Tensor, hr: Tensor) -> float:
            metric.update(made, hr.to(made.device))
            return _last(metric)

        for lr, hr in crops(self.data.train_images, count):
            yield judged(generator(lr), hr), judged(enlarge(lr, scale), hr)


def _last(metric: Any) -> float:
    return float(metric.last.item())


def _of_each(metrics: MetricCollection) -> dict[str, float]:
    """The figures of the latest image, of those metrics that take one of each image."""
    return {name: _last(metric) for name, metric in metrics.items() if isinstance(metric, MeanOverImages)}


def _upscaler(generator: Network) -> Upscaler:
    """Raises UserError: the network does not enlarge."""
    if not isinstance(generator, Upscaler):
        raise UserError(
            f"task=super_resolution needs a generator that enlarges (upsweep.networks.upscalers.Upscaler), and "
            f"{type(generator).__name__} does not: choose another generator, or the task it is for."
        )
    return generator


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
