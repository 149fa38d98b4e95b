"""What a task is: the batches that go in, what is compared with what, and the figures by which results are judged."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from upsweep.common.errors import UserError
from upsweep.data.sources import Contents
from upsweep.imaging.tiles import Cell, Panel, apart
from upsweep.metrics.figure import Figure, figures_of, ranked
from upsweep.metrics.own import Own
from upsweep.networks.network import Network


class Compared(NamedTuple):
    """What a network made, and what was wanted: two batches of one shape."""

    made: Tensor
    wanted: Tensor
    paired: bool = True  # whether each image that was made is to be the wanted one of its place; else only of its kind
    cost: Tensor | None = None  # what the network pays besides, a scalar: a VAE's divergence


class Few(NamedTuple):
    """Some latents (N, L), and as many real images (N, C, S, S), float32 in [0, 1], to look at samples beside them."""

    latent: Tensor
    trained_on: Tensor
    held_out: Tensor


class Task(nn.Module, ABC):
    """Derive, say what each figure is measured by, and write `make` and `judge`.

    A batch is a NamedTuple, another tuple, a list or a mapping, whose first tensor is what the network takes.

    Args:
        figures: what results are judged by, the headline first: `Figure`s, or mappings from a config.
        data: the DataModule that feeds the network.
        measures: name of a figure -> a factory of the torchmetrics `Metric` that measures it.

    Raises:
        UserError: there is no figure, or one that nothing measures.
    """

    coverage: ClassVar[str | None] = None  # the figure that is the share of real images with a sample like them

    def __init__(
        self,
        figures: Sequence[Figure | Mapping[str, Any]],
        data: pl.LightningDataModule,
        measures: Mapping[str, Callable[[], Metric]],
    ) -> None:
        super().__init__()
        self.figures, self.data = figures_of(figures), data
        if not self.figures:
            raise UserError("task.figures is empty: without a figure nothing can be judged.")
        known = ", ".join(measures)
        for name in (figure.name for figure in self.figures):
            if name not in measures:
                raise UserError(f"task.figures names {name}, which this task does not measure; it measures {known}.")
        self.metrics = MetricCollection({f.name: measures[f.name]() for f in self.figures}, compute_groups=False)
        # The baseline is judged once, in the first validation, on the same images.
        held_against = {f.name: measures[f.name] for f in self.figures if f.baseline}
        self.baseline_metrics = MetricCollection({n: make() for n, make in held_against.items()}, compute_groups=False)
        self.baseline: dict[str, float] = {}

    def judge_by(
        self, figures: Sequence[Figure], metrics: Mapping[str, Metric] | None = None, rank_by: str | None = None
    ) -> None:
        """Judge by figures of the user's own besides, and rank by any of them.

        Args:
            figures: what they mean; one that no metric measures is logged as `val/<name>` by whoever knows it.
            metrics: name of a figure -> what measures it.
            rank_by: the name of the figure that becomes the headline; None leaves that as it is.

        Raises:
            UserError: a name is there twice, `rank_by` is unknown, or the task cannot feed a metric.
        """
        held_against = {figure.baseline for figure in self.figures}
        own = []
        for figure in figures:
            if (metric := (metrics or {}).get(figure.name)) is not None:
                figure = figure if figure.baseline in held_against else replace(figure, baseline=None)
                self.metrics.add_metrics({figure.name: self.adapted(figure.name, metric)})
                if figure.baseline:
                    self.baseline_metrics.add_metrics({figure.name: self.adapted(figure.name, metric)})
            own.append(figure)
        self.figures = ranked(figures_of([*self.figures, *own]), rank_by)

    def adapted(self, name: str, metric: Metric) -> Metric:
        """A new metric that takes what `feed` gives, and asks the user's own; for a `feed` of other than two images."""
        return Own(name, metric)

    @property
    def headline(self) -> Figure:
        """What results are ranked by."""
        return self.figures[0]

    @property
    def shown(self) -> Figure:
        """The figure of single images, in captions and beside training images: the headline, where it has one."""
        return self.headline

    @property
    def contents(self) -> Contents:
        """The images that are trained and validated on; none where the DataModule does not tell its `contents`."""
        told: Contents = getattr(self.data, "contents", Contents({}, {}))
        return told

    @property
    def image_sizes(self) -> dict[str, str]:
        """Width and height of these images as they are used: `training/a.png` -> `512x512`; none, likewise."""
        told: dict[str, str] = getattr(self.data, "image_sizes", {})
        return told

    @abstractmethod
    def make(self, generator: Network, batch: Any) -> list[Compared]:
        """What the generator makes of a training batch, and what is wanted: a pair for each supervised output."""

    @abstractmethod
    def judge(self, generator: Network, batch: Any) -> Tensor:
        """Feed the metrics, by `feed` and `feed_baseline`, with what the generator makes of a batch; what it made."""

    def given(self, batch: Any) -> Tensor:
        """What the network takes of a training batch: its first tensor."""
        each = batch.values() if isinstance(batch, Mapping) else [batch] if isinstance(batch, Tensor) else batch
        return next(x for x in each if isinstance(x, Tensor))

    def feed(self, *seen: Tensor, **more: Any) -> None:
        """Add a batch to every metric: what it takes, such as what was made and what was wanted."""
        self.metrics.update(*seen, **more)

    def feed_baseline(self, *seen: Tensor, **more: Any) -> None:
        """The same for what is made without a network, as long as the baseline's figures are not known."""
        if not self.baseline:
            self.baseline_metrics.update(*seen, **more)

    def compute(self) -> dict[str, float]:
        """The figures over all batches that were judged, on all devices, by name; the metrics begin anew."""
        if not self.baseline:
            self.baseline = self._computed(self.baseline_metrics)
        return self._computed(self.metrics)

    def _computed(self, metrics: MetricCollection) -> dict[str, float]:
        values = metrics.compute()
        metrics.reset()
        return {figure.name: float(values[figure.name]) for figure in self.figures if figure.name in values}

    # what people look at; a task that leaves these out has no pictures, and nothing is said of overfitting

    def details(self) -> dict[str, float]:
        """Numbers of the latest validation that explain its figures, and rank nothing, for the log."""
        return {}

    def panel(self, batch: Any, made: Tensor, size: int = 320) -> Panel | None:
        """A picture, at most `size` pixels high, of the batch judged last: baseline | made | wanted, or see `Panel`."""
        return None

    def row(self, batch: Any, made: Tensor) -> dict[str, Cell]:
        """A row of a table, of the batch judged last: the name, the tiles of its panel by their titles, figures."""
        panel = self.panel(batch, made)
        return {} if panel is None else {"image": panel.name, **{tile.name: tile for tile in apart(panel)}}

    def last_rows(self, generator: Network) -> Iterator[dict[str, Cell]]:
        """Rows of the trained generator, likewise, at the end of a training: the table, where there are any."""
        return iter(())

    def last_panels(self, generator: Network) -> Iterator[Panel]:
        """Pictures of the trained generator, in evaluation mode, at the end of a training."""
        return iter(())

    def last_lead(self) -> float | None:
        """By how much the figure `shown` of the batch judged last is better than its baseline."""
        return None

    def judge_training(self, generator: Callable[[Tensor], Tensor], count: int) -> Iterator[tuple[float, float]]:
        """The figure `shown` of up to `count` training samples, each with its baseline's, for a look at overfitting."""
        return iter(())

    def few(self, count: int) -> Few | None:  # for tasks that make samples
        """Latents and real images, `count` at most, always the same; None where nothing is made of latents."""
        return None
