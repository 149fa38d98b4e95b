"""The weights that the page offers: the checkpoints that were named, and those that the package carries."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import torch

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.networks.checkpoints import load_generator, load_upscaler
from upsweep.networks.synthesisers.synthesiser import Synthesiser
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tracking.weights import located
from upsweep.upscaling.engines import Accelerated, hold_to_engine
from upsweep.upscaling.model import SCALE
from upsweep.upscaling.picture import Enlarger


class Weights:
    """Networks by the names that the page shows; those of the package are loaded when they are first used.

    Args:
        checkpoints: files, or folders of runs, of upscalers and of synthesisers.
        device: where the networks work.
        tile, engine: see `Enlarger` and `Accelerated`.
        allow: see `checkpoints.load_generator`.

    Raises UserError where a checkpoint cannot be loaded, or its network neither enlarges nor draws.
    """

    def __init__(
        self,
        checkpoints: Sequence[str],
        device: torch.device,
        tile: int | None,
        *,
        engine: str = "auto",
        allow: Collection[str] = (),
    ) -> None:
        hold_to_engine(engine, device)
        self.device, self._tile, self._engine = device, tile, engine
        self.synthesisers: dict[str, Synthesiser] = {}
        self._enlargers: dict[tuple[str, int], Enlarger] = {}
        for said in checkpoints:
            network = load_generator(located(said), allow=allow).to(device)
            if isinstance(network, Synthesiser):
                self.synthesisers[said] = network
            elif isinstance(network, Upscaler):
                self._enlargers[said, network.scale] = self._enlarging(network)
            else:
                raise UserError(f"{said} names a {type(network).__name__}, which neither enlarges nor makes images.")
        self._named = list(self._enlargers)

    @cached_property
    def upscalers(self) -> Mapping[int, Sequence[str]]:
        """The names for each scale: checkpoints first, then the package's own with its default in front."""
        shipped = sorted(release.available(), key=lambda one: one[0] != release.DEFAULT)
        both = [*self._named, *shipped]
        return {scale: [name for name, own in both if own == scale] for scale in sorted({own for _, own in both})}

    @property
    def scale(self) -> int:
        """What the page begins with: the scale of the first checkpoint that enlarges, without one upscale.py's."""
        return self._named[0][1] if self._named else SCALE

    def enlarger(self, name: str, scale: int) -> Enlarger:
        """What enlarges with those weights; UserError where there are none such."""
        if (name, scale) not in self._enlargers:
            network = load_upscaler(release.path(name, scale)).to(self.device)
            self._enlargers[name, scale] = self._enlarging(network)
        return self._enlargers[name, scale]

    def _enlarging(self, network: Upscaler) -> Enlarger:
        return Enlarger(Accelerated(network, self._engine), self._tile)
