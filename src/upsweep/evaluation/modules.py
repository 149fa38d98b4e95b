"""Rows of networks that upsweep does not know: a class of the user's own, and a file of weights for each row."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from upsweep.common.errors import UserError
from upsweep.evaluation.methods import Method, Views
from upsweep.networks.foreign import PROBE, Foreign, Range, build, load_weights, shape_of
from upsweep.networks.upscalers.upscaler import Upscaler

log = logging.getLogger("upsweep")

CHANNELS = {None: None, "y": 1, "rgb": 3}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A module as a command line names it.

    Attributes:
        module: its class, or what makes it, by its dotted name.
        weights: files, a row each; none for a module that brings its own.
        colour: what it takes; None finds out.
        takes: the range of the values that it takes: 1, 255, or its two ends.
        gives: the same of the values that it gives; None for the same range.
        args: of its constructor.
    """

    module: str
    weights: Sequence[Path] = ()
    colour: Literal["y", "rgb"] | None = None
    takes: Any = 1.0
    gives: Any = None
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModuleMethod(Method):
    """The row of a module. Plain values, as in any method: another process imports the class anew."""

    module: str
    weights: Path | None
    takes: Range
    gives: Range
    args: Mapping[str, Any]

    def plain(self) -> Upscaler:
        module = build(self.module, self.args)
        if self.weights is not None:
            load_weights(module, self.weights, ema=self.views.ema)
        return Foreign(module, self.scale, self.channels, self.takes, self.gives, self.module).eval()


def modules(asked: Asked, scales: Collection[int], views: Views) -> list[Method]:
    """The rows of a module, one for each file of weights; each is built and tried on a small image.

    Raises:
        UserError: something of it is not there, cannot be made or does not fit.
    """
    if asked.colour not in CHANNELS:
        raise UserError(
            f"colour={asked.colour} must be y (the luma) or rgb, or null to find out what the module takes."
        )
    takes = Range.of("range", asked.takes)
    gives = takes if asked.gives is None else Range.of("range_out", asked.gives)
    module = build(asked.module, asked.args)
    scale, channels = shape_of(module, CHANNELS[asked.colour], takes, asked.module)
    if scales and scale not in scales:
        said = ", ".join(map(str, scales))
        raise UserError(f"scale={said}, but {asked.module} enlarges {scale} times: leave scale out, it has its own.")
    if not asked.weights and any(True for _ in module.parameters()):
        log.warning("No weights= for %s: it is judged with those that its constructor gives it.", asked.module)
    files: Sequence[Path | None] = asked.weights or [None]
    title = asked.module.rpartition(".")[2]
    rows = [
        ModuleMethod(
            name=title + (f" {file.stem}" if file and len(files) > 1 else "") + str(views),
            scale=scale,
            channels=channels,
            checkpoint=file or Path(asked.module),
            views=views,
            module=asked.module,
            weights=file,
            takes=takes,
            gives=gives,
            args=asked.args,
        )
        for file in files
    ]
    for row in rows:  # what does not fit is said before anything is judged
        _hold_to_grey(row)
    return [*rows]


@torch.no_grad()
def _hold_to_grey(row: ModuleMethod) -> None:
    """Warn where a grey image does not stay grey: one of the two ranges is not the module's."""
    generator = row.generator()
    grey = generator(torch.full((1, generator.channels, *PROBE), 0.5)).mean().item()
    if not 0.25 < grey < 0.75:
        log.warning(
            "%s takes grey (0.5) and gives %.3g, with range=%s and range_out=%s: is one of them another? (1 is for "
            "values in [0, 1], 255 for [0, 255], '[-1,1]' for those.)",
            *(row.name, grey, row.takes, row.gives),
        )
