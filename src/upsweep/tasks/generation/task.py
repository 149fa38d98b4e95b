"""Image generation as a task: synthesisers are judged by how far their samples are from real images, as sets."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from torch import Tensor
from torchmetrics import Metric

from upsweep.common.errors import UserError
from upsweep.imaging.tiles import Cell, Panel, side_by_side
from upsweep.metrics.distances import KID, MEASURES, Diversity
from upsweep.metrics.extractors import Extractor, extractor_of
from upsweep.metrics.figure import Figure, figures_of
from upsweep.metrics.own import OfSamples
from upsweep.metrics.pairs import evenly
from upsweep.metrics.reference import Reference
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.networks.synthesisers.vae import VAE
from upsweep.tasks.generation.data import ImageData, Images, fixed_latents
from upsweep.tasks.generation.pictures import latent_walk, nearest_images, neighbours, one, square
from upsweep.tasks.generation.reference import DataReference, as_batch
from upsweep.tasks.task import Compared, Few, Task

TITLES = {"made": "samples", "wanted": "real images"}
SHOWN = 8  # latents of the pictures at the end


class Generation(Task):
    """Latents in, images out; the figures are taken of features that an extractor finds in samples and real images.

    Args:
        extractor: `digits`, `random` or `inception`; its name stands in the title of every figure.
        weights: the local file of Inception's.
        samples: how many the data module has judged, which is a part of what a figure means.

    A subclass with `measures` of its own has figures of its own.
    """

    coverage = "recall"
    measures: ClassVar[Mapping[str, Callable[[Reference], Metric]]] = MEASURES
    data: ImageData

    def __init__(
        self,
        figures: Sequence[Figure | Mapping[str, Any]],
        data: ImageData,
        extractor: str = "random",
        weights: str | None = None,
        samples: int = 5000,
    ) -> None:
        self.samples = samples
        if not hasattr(data, "training_images"):
            raise UserError(
                f"task=generation cannot be fed by {type(data).__name__}: its figures compare samples with all real "
                "images, which a subclass of upsweep.tasks.generation.data.ImageData knows. Images of your own: "
                "data=folder data.root=PATH."
            )
        judge = extractor_of(extractor, weights)
        self._judge = (judge,)  # no part of what is trained and saved: a tuple hides it from torch
        self.reference = DataReference(judge, data)
        ends = f" ({judge.name})"
        titled = [replace(f, title=judge.titled(f.title.removesuffix(ends))) for f in figures_of(figures)]
        measures = {name: partial(measure, self.reference) for name, measure in self.measures.items()}
        super().__init__(titled, data, measures)
        self.diversity = Diversity(self.reference)
        self._details: dict[str, float] = {}

    def make(self, generator: Network, batch: Images) -> list[Compared]:
        """A VAE's reconstructions of real images, at the cost of its divergence; else samples of the latents."""
        if isinstance(generator, VAE):
            made, divergence = generator.reconstruct(batch.real)
            return [Compared(made, batch.real, cost=divergence)]
        return [Compared(_synthesiser(generator)(batch.latent), batch.real, paired=False)]

    def judge(self, generator: Network, batch: Images) -> Tensor:
        """Judge samples (N, C, S, S) of a batch's latents; the samples."""
        network = _synthesiser(generator)
        for metric in self.metrics.values():
            if isinstance(metric, OfSamples) and metric.takes == "sets":
                metric.add(batch.real, real=True)
        if not len(batch.latent):  # real images alone; not every norm takes an empty batch
            return batch.real[:0]
        made: Tensor = network(batch.latent).float().clamp(0, 1)
        self.feed(self.extractor.to(made.device)(made), made=made)
        return made

    def adapted(self, name: str, metric: Metric) -> Metric:
        """One that takes samples. Raises UserError: it compares pairs."""
        own = OfSamples(name, metric)
        if own.takes == "pairs":
            raise UserError(
                f"metrics={name} compares each image with the one that was wanted, and task=generation has none: leave "
                "it out, or choose a metric whose update takes (images) or (images, real)."
            )
        return own

    def feed(self, *seen: Tensor, **more: Any) -> None:
        """Add the features (N, F) of samples."""
        super().feed(*seen, **more)
        self.diversity.update(*seen)

    def compute(self) -> dict[str, float]:
        figures = super().compute()
        self._details = {"diversity": float(self.diversity.compute())}
        if isinstance(kid := dict(self.metrics.items()).get("kid"), KID):
            self._details["kid_error"] = kid.error
        self.diversity.reset()
        return figures

    def details(self) -> dict[str, float]:
        """The standard error of KID; how far apart samples are, by how far real images are."""
        return self._details

    @property
    def extractor(self) -> Extractor:
        """What finds the features."""
        return self._judge[0]

    def panel(self, batch: Images, made: Tensor, size: int = 320) -> Panel | None:
        """Samples of the same latents, whenever and in whatever run they are made | real images, where there are any.

        As many of the one as of the other.
        """
        if not len(made):
            return None
        shown = {"made": made, **({"wanted": batch.real} if len(batch.real) else {})}
        count = min(map(len, shown.values()))
        pixels = side_by_side([square(images[:count], size) for images in shown.values()])
        titles = {role: TITLES[role] for role in shown}
        above = tuple(titles.values())
        return Panel("samples", pixels, " | ".join(above), titles, "Samples of the same latents", above)

    def last_panels(self, generator: Network) -> Iterator[Panel]:
        """A latent walk, and some samples with the training images that are most like them."""
        latents = fixed_latents(SHOWN, _synthesiser(generator).latent)
        yield latent_walk(generator, latents)
        made = samples(generator, latents)
        extractor = self.extractor.cpu()
        yield neighbours(made, extractor(made), self.data.training_images(), self.reference.training, extractor.name)

    def last_rows(self, generator: Network) -> Iterator[dict[str, Cell]]:
        """A row a sample: it, its nearest training images by features, and the distance to the nearest."""
        made = samples(generator, fixed_latents(SHOWN, _synthesiser(generator).latent))
        features = self.extractor.cpu()(made)
        distances, near = nearest_images(features, self.data.training_images(), self.reference.training)
        for number, sample in enumerate(made):
            nearest = {f"nearest {i}": one(image, f"nearest {i}") for i, image in enumerate(near[number], start=1)}
            distance = float(distances[number, 0])
            yield {"image": f"sample {number + 1}", "sample": one(sample, "sample"), **nearest, "distance": distance}

    def few(self, count: int) -> Few:
        return few_of(self.data, count)


def few_of(data: ImageData, count: int) -> Few:
    """Evenly chosen real images of a data set, and the first of the latents that are judged; `count` at most."""
    real = data.training_images(), data.validation_images()
    trained_on, held_out = (as_batch(evenly(images, count)) for images in real)
    return Few(fixed_latents(count, data.latent), trained_on, held_out)


def _synthesiser(generator: Network) -> Synthesiser:
    """Raises UserError: the network makes no images of latents."""
    if not isinstance(generator, Synthesiser):
        raise UserError(
            f"task=generation needs a generator that makes images of latents (generator=dcgan, resnet, vae), and "
            f"{type(generator).__name__} does not: choose another generator, or the task it is for."
        )
    return generator
