"""Metrics of the user's own: any torchmetrics Metric that takes images, as a figure beside those of a task."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from upsweep.common.errors import UserError, first_line
from upsweep.metrics.metric import MeanOverImages
from upsweep.metrics.protocol import Protocol

Takes = Literal["pairs", "images", "sets"]


class Own(Metric):
    """A metric of the user's own, which is fed as its `update` takes it.

    `update(made, wanted)` compares pairs, `update(images)` judges what was made alone, and `update(images, real)`, as
    that of torchmetrics' FID, compares all images that were made with all that are real. The value is the metric's own
    `compute`, over all devices.

    Args:
        name: under `metrics` in the config.
        metric: left as it is; a copy of it is fed. It lies out of torch's sight, since a network in it is neither
            trained nor saved.

    Raises:
        UserError: its `update` takes none of these, or it wants bytes.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, name: str, metric: Metric) -> None:
        super().__init__()
        self.name, self.takes = name, _takes(name, metric)
        self._held = (metric.clone(),)
        self._begun = frozenset(vars(self._held[0]))

    @property
    def metric(self) -> Metric:
        """The user's own, on the device of this one."""
        return self._held[0].to(self.device)

    def update(self, made: Tensor, wanted: Tensor | None = None, **more: Any) -> None:
        """Add images; of `more`, the metric gets the arguments that it names."""
        metric = self.metric
        with self.told():
            if self.takes == "sets":
                self.add(made, real=False)
                self.add(wanted, real=True)
            elif self.takes == "images":
                metric.update(made, **_named(metric, more))
            else:
                metric.update(made, wanted, **_named(metric, more))

    def add(self, images: Tensor | None, *, real: bool) -> None:
        """Add some images to one of two sets."""
        if images is not None and len(images):
            with self.told():
                self.metric.update(images, real=real)

    def compute(self) -> Tensor:
        """Give the value, a float64 scalar on the CPU. Raises UserError: the metric gives no single number."""
        with self.told():
            value = self.metric.compute()
        if not isinstance(value, int | float | Tensor) or torch.as_tensor(value).numel() != 1:
            raise UserError(
                f"metrics.{self.name} must give one number; {type(self._held[0]).__name__} gives {_shape(value)}: "
                "choose another reduction, or write a class whose compute gives one."
            )
        return torch.as_tensor(value).detach().cpu().double().reshape(())

    def reset(self) -> None:
        super().reset()
        self._held[0].reset()
        for kept in vars(self._held[0]).keys() - self._begun:  # such as RMSE-SW's map, of the size of the last image
            delattr(self._held[0], kept)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say which metric it is that refuses what it is given."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            what = f"metrics.{self.name}: {type(self._held[0]).__name__} cannot be taken of these images"
            raise UserError(f"{what} ({first_line(error)}).") from error


class OfEach(MeanOverImages):
    """The mean over images of what such a metric says of each, seen under a protocol: as PSNR and SSIM are taken.

    The metric sees one image at a time, what the protocol compares of it: (1, 1 or 3, H, W), float32 in [0, 1].
    """

    def __init__(self, own: Own, protocol: Protocol, scale: int) -> None:
        super().__init__(protocol, scale)
        for metric in own.metric.modules():  # an image is judged by the process that has it; the sums meet
            if isinstance(metric, Metric):
                metric.distributed_available_fn = _alone
        self._own = (own,)

    def figure(self, sr: Tensor, hr: Tensor) -> Tensor:
        (own,) = self._own
        own.to(self.device)
        own.update(*(as_seen(planes).to(self.device) for planes in (sr, hr)))
        value = own.compute()
        own.reset()
        return value


class OfSamples(Own):
    """A metric of samples, or of samples and real images as sets: it is updated beside those that take features."""

    def update(self, features: Tensor, made: Tensor) -> None:  # type: ignore[override]
        """Add samples (N, C, H, W) in [0, 1]; their features are for others."""
        del features
        super().update(made)


class OfAll(Own):
    """A metric of two sets, of which each image is seen under a protocol; see `OfEach`."""

    def __init__(self, name: str, metric: Metric, protocol: Protocol, scale: int) -> None:
        super().__init__(name, metric)
        self.protocol, self.scale = protocol, scale

    def update(self, sr: Tensor, hr: Tensor, grey: bool = False) -> None:  # type: ignore[override]
        """Add the images of a batch: as `MeanOverImages.update`."""
        for image, real in ((sr, False), (hr, True)):
            for one in image:
                self.add(as_seen(self.protocol.planes(one, self.scale, grey=grey)).to(self.device), real=real)


def _alone() -> bool:
    return False


def as_seen(planes: Tensor) -> Tensor:
    """Planes (C, H, W), float64 in 0..255, as a batch of one image (1, C, H, W), float32 in [0, 1]."""
    return (planes[None] / 255).float()


def _takes(name: str, metric: Metric) -> Takes:
    parameters = inspect.signature(metric.update).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return "pairs"
    asked = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    if "real" in asked:
        if getattr(metric, "normalize", True) is False:
            raise UserError(
                f"metrics.{name}.metric.normalize=false needs bytes, but images are float32: set it to true."
            )
        return "sets"
    if len(asked) not in (1, 2):
        raise UserError(
            f"metrics.{name}: {type(metric).__name__}.update takes {', '.join(asked) or 'nothing'}; it must take "
            "(made, wanted), (images), or (images, real)."
        )
    return "pairs" if len(asked) == 2 else "images"


def _named(metric: Metric, more: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in more.items() if key in inspect.signature(metric.update).parameters}


def _shape(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.numel()} numbers"
    return f"{len(value)} values" if isinstance(value, tuple | list | dict) else type(value).__name__
