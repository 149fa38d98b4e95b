"""Synthesisers explained by images from latents: the sections of their page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.explaining import synthesisers
from upsweep.explaining.explainer import Explainer
from upsweep.explaining.section import Section
from upsweep.explaining.synthesisers import Looks, SampleCase, TrainedOn
from upsweep.metrics.figure import Figure
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser

PARTS = ("latent_walks", "layer_effects", "nearest_training_images")


@dataclass(frozen=True, kw_only=True)
class OfLatents(Explainer):
    """Synthesisers, explained by images from the same latents.

    Attributes:
        data: what the images are called that they were trained on.
        training: those images; None where they are not known.
        parts: which sections are made.
        looks: what is tried and shown.
        device: where the networks work.
    """

    figures: ClassVar[tuple[Figure, ...]] = synthesisers.FIGURES
    data: str
    training: TrainedOn | None
    parts: Sequence[str] = PARTS
    looks: Looks = field(default_factory=Looks)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def image(self) -> str:
        return self.data

    @property
    def before(self) -> str:
        return f"latents, beside {self.data}"

    @property
    def asked(self) -> dict[str, Any]:
        return {"data": self.data, "parts": [*self.parts], "looks": asdict(self.looks)}

    def sections(self, networks: Mapping[str, Network], bar: Bar) -> Iterator[Section]:
        cases = [
            SampleCase(name=name, network=self._synthesiser(name, network), training=self.training)
            for name, network in networks.items()
        ]
        makers: dict[str, Callable[[Sequence[SampleCase], Looks], Section]] = {
            "latent_walks": synthesisers.latent_walks,
            "layer_effects": synthesisers.layer_effects,
            "nearest_training_images": synthesisers.nearest_training_images,
        }
        for part in self.parts:
            bar.update(bar.done, doing=part.replace("_", " "))
            yield makers[part](cases, self.looks)
            bar.advance()

    def _synthesiser(self, name: str, network: Network) -> Synthesiser:
        if not isinstance(network, Synthesiser):
            raise UserError(f"{name} does not make images from latents: explain it in a separate command.")
        return network.to(self.device)
