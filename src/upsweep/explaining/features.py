"""The activations of each layer's channels, and which channels are dead or duplicates."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from upsweep.blocks import Block
from upsweep.common.checks import at_least
from upsweep.common.errors import UserError
from upsweep.explaining.canvas import GREY, LINE, Canvas
from upsweep.explaining.case import Case, Square, unturned
from upsweep.explaining.section import Section
from upsweep.metrics.figure import Figure

FIGURES = (
    Figure(name="dead", title="dead channels", unit="%", better="lower", digits=1),
    Figure(name="duplicates", title="duplicate channels", unit="%", better="lower", digits=1),
)
CONSTANT = 1e-6  # a channel is dead whose standard deviation is at most this share of its layer's
DEAD, TWIN = "#d9566b", "#2f6fc4"  # frames
COLUMNS = 16  # channels in a line
TILE, GAP, LABEL = 48, 8, 150  # pixels of the picture: a channel, what lies between two, the names of layers
PITCH = LINE + TILE + GAP  # from one line of channels to the next


@dataclass(frozen=True)
class Features:
    """What is shown.

    Attributes:
        crop: side of the square around the window, in LR pixels.
        channels: of a layer that are shown, at most.
        layers: that are shown, at most, evenly chosen where a network has more; all are counted.
        alike: the cosine from which on two channels count as one.
    """

    crop: int = 48
    channels: int = 32
    layers: int = 12
    alike: float = 0.99

    def __post_init__(self) -> None:
        """Raises UserError: a number is of no use."""
        at_least("features", 1, crop=self.crop, channels=self.channels, layers=self.layers)
        if not 0 < self.alike < 1:
            raise UserError(f"features.alike={self.alike} must be a cosine between 0 and 1.")


def dead_channels(features: Tensor) -> Tensor:
    """Which channels of a layer (C, H, W) are constant: (C,) of truth values.

    Constant is a standard deviation of at most 1e-6 of the layer's, the root of the mean variance of its channels. A
    channel behind ReLU that never answers is 0 everywhere; one may also stand still at another value.
    """
    deviation = _centred(features).square().mean(1).sqrt()
    return deviation <= CONSTANT * deviation.square().mean().sqrt()


def duplicates(features: Tensor, alike: float = 0.99) -> Tensor:
    """For each channel of a layer (C, H, W) the first earlier one that it repeats, or -1: (C,) of whole numbers.

    It repeats it where the cosine of the two, each less its mean, is above `alike` or below -`alike`: up to a shift
    and a factor, the two are one picture. Dead channels repeat nothing.
    """
    centred = _centred(features)
    unit = F.normalize(centred, dim=1, eps=1e-30)
    unit[dead_channels(features)] = 0
    repeats = ((unit @ unit.T).abs() > alike).tril(-1)
    return torch.where(repeats.any(1), repeats.int().argmax(1), -1)


def _centred(features: Tensor) -> Tensor:
    """Channels (C, H W), each less its mean; exactly 0 where one is constant, which a mean alone would round."""
    flat = features.flatten(1)
    flat = flat - flat[:, :1]
    return flat - flat.mean(1, keepdim=True)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that are looked at, by name: all blocks; where there are none, all modules without parts."""
    blocks: dict[str, nn.Module] = {
        name: module for name, module in network.named_modules() if isinstance(module, Block)
    }
    return blocks or {
        name: module
        for name, module in network.named_modules()
        # A parametrised layer (weight norm) has parts that hand out weights.
        if name and "parametrizations" not in name and not set(dict(module.named_children())) - {"parametrizations"}
    }


def shown_of(dead: Tensor, repeats: Tensor, most: int) -> list[int]:
    """The numbers of at most so many channels, in order: dead ones and duplicates before others."""
    marked = (dead | (repeats >= 0)).tolist()
    return sorted(sorted(range(len(marked)), key=lambda channel: not marked[channel])[:most])


def stretched(channels: Tensor) -> Tensor:
    """Channels (c, h, w), each in [0, 1] from its 1st to its 99th percentile; light grey where it is constant.

    One that is constant but for a few pixels goes from its least to its largest value.
    """
    flat = channels.flatten(1)
    least, low, high, most = flat.quantile(torch.tensor([0, 0.01, 0.99, 1]), dim=1)[..., None]
    least, most = (torch.where(high > low, near, far) for near, far in ((low, least), (high, most)))
    flat = torch.where(most > least, (flat - least) / (most - least).clamp(min=1e-30), 0.85)
    return flat.clamp(0, 1).view_as(channels)


@contextmanager
def watched(network: nn.Module, look: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within, `look` is given the name and the output (N, C, H, W) of each layer as it runs, one at a time.

    A layer that runs twice is `name (2)` the second time. Outputs of other shapes are passed over, and those of one
    pixel, in which nothing can be told apart.
    """
    times: Counter[str] = Counter()

    def seen(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-2:].numel() > 1:
            times[name] += 1
            look(name if times[name] == 1 else f"{name} ({times[name]})", output.detach())

    handles = [module.register_forward_hook(partial(seen, name)) for name, module in layers_of(network).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """What was seen of a layer with C channels.

    Attributes:
        name: in the network.
        dead: which channels are constant, (C,).
        repeats: the first earlier channel that each repeats, or -1, (C,).
        shown: the channels that are shown.
        crop: these around the window, `stretched`: (c, h, w) in [0, 1].
    """

    name: str
    dead: Tensor
    repeats: Tensor
    shown: list[int]
    crop: Tensor

    @property
    def twins(self) -> Tensor:
        """Which channels repeat an earlier one, (C,)."""
        return self.repeats >= 0

    @property
    def idle(self) -> int:
        """How many channels are dead or repeat another one."""
        return int((self.dead | self.twins).sum())


@torch.no_grad()
def look_through(
    network: nn.Module, lr: Tensor, window: tuple[float, float, float, float], asked: Features
) -> list[LayerFeatures]:
    """The layers of a network in evaluation mode, in the order in which they run.

    Channels are judged on the whole image; what is shown is cut out after the pass, without borders of its own.

    Args:
        lr: (1, C, h, w).
        window: top, bottom, left, right of what is shown, as shares of the image.
    """
    found: list[LayerFeatures] = []

    def look(name: str, output: Tensor) -> None:
        features = output[0].float()
        top, bottom, left, right = (round(share * features.shape[-2 + i // 2]) for i, share in enumerate(window))
        dead, repeats = dead_channels(features).cpu(), duplicates(features, asked.alike).cpu()
        shown = shown_of(dead, repeats, asked.channels)
        crop = features[shown, top : max(bottom, top + 1), left : max(right, left + 1)].cpu()
        found.append(LayerFeatures(name, dead, repeats, shown, stretched(crop)))

    with watched(network, look):
        network(lr)
    return found


def features(cases: Sequence[Case], window: Square, asked: Features) -> Section:
    """The channels of every layer as tiles, the dead ones and the duplicates marked.

    Args:
        cases: of one image.
        window: what lies in the middle of what is shown.
        asked: how much is shown.
    """
    each = [
        look_through(unturned(case.network), case.image.lr, _shares(case, window, asked.crop), asked) for case in cases
    ]
    return Section(
        name="features",
        title="Features",
        picture=_picture([case.name for case in cases], each, asked),
        reading=(
            f"A row is a layer, a tile is a channel on the {asked.crop} LR pixels around the window, black where it "
            "is small and white where it is large, light grey where it is the same all over them. A red frame marks "
            "a dead channel: it is the same everywhere in the image. A blue one marks a duplicate: up to a factor and "
            f"a shift (a cosine beyond ±{asked.alike:g}) it is an earlier channel of the layer, whose number "
            "stands above it. Both cost as much as others, and add nothing on this image; on another one they may. "
            f"At most {asked.channels} channels of a layer are shown, and all are counted."
        ),
        said=tuple(_sentence(case.name, layers) for case, layers in zip(cases, each, strict=True)),
        figures={case.name: shares_of(layers) for case, layers in zip(cases, each, strict=True) if layers},
    )


def shares_of(layers: Sequence[LayerFeatures]) -> dict[str, float]:
    """The figures: of 100 channels of all layers, how many are dead, and how many repeat an earlier one."""
    total = sum(len(layer.dead) for layer in layers)
    dead, twins = sum(int(layer.dead.sum()) for layer in layers), sum(int(layer.twins.sum()) for layer in layers)
    return {"dead": 100 * dead / total, "duplicates": 100 * twins / total}


def _shares(case: Case, window: Square, crop: int) -> tuple[float, float, float, float]:
    """Top, bottom, left, right of `crop` LR pixels around the window, moved into the image, as shares of it."""
    shares = []
    for start, length in zip((window.top, window.left), case.image.lr.shape[-2:], strict=True):
        side = min(crop, length)
        middle = (start + window.size / 2) / case.scale
        first = min(max(0, round(middle - side / 2)), length - side)
        shares += [first / length, (first + side) / length]
    top, bottom, left, right = shares
    return top, bottom, left, right


def _sentence(name: str, layers: Sequence[LayerFeatures]) -> str:
    if not layers:
        return f"{name}: no layer has features as its output, so there is nothing to show."
    figures = shares_of(layers)
    dead, twins = (figure.text(figures[figure.name]) for figure in FIGURES)
    total = sum(len(layer.dead) for layer in layers)
    worst = max(layers, key=lambda layer: layer.idle)
    most = f", most of them in {worst.name} ({worst.idle} of {len(worst.dead)})" if worst.idle else ""
    return f"{name}: of {total} channels in {len(layers)} layers, {dead} are dead and {twins} are duplicates{most}."


def _picture(names: Sequence[str], each: Sequence[Sequence[LayerFeatures]], asked: Features) -> NDArray[np.uint8]:
    """A block of rows a case; of many cases less is shown of each."""
    many = len(names) > 2
    canvas, y = Canvas(LABEL + COLUMNS * (TILE + GAP)), 4
    for name, layers in zip(names, each, strict=True):
        y = canvas.heading(y, name) + GAP
        for layer in _some(layers, min(asked.layers, 24 // len(names)) if many else asked.layers):
            y = _row(canvas, y, layer, COLUMNS if many else asked.channels)
        y += LINE
    return canvas.pixels


def _some(layers: Sequence[LayerFeatures], count: int) -> list[LayerFeatures]:
    """At most `count` layers, at even steps from the first to the last."""
    count = max(2, count)
    if len(layers) <= count:
        return [*layers]
    return [layers[round(i * (len(layers) - 1) / (count - 1))] for i in range(count)]


def _row(canvas: Canvas, top: int, layer: LayerFeatures, most: int) -> int:
    """The channels of a layer in lines of 16, each below its number; gives the row of pixels below."""
    counts = {"dead": int(layer.dead.sum()), "repeat": int(layer.twins.sum())}
    idle = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    canvas.caption((4, top), layer.name, [f"{len(layer.dead)} channels", idle], width=LABEL - 8)
    shown = layer.shown if len(layer.shown) <= most else shown_of(layer.dead, layer.repeats, most)
    for number, channel in enumerate(shown):
        line, column = divmod(number, COLUMNS)
        x, y = LABEL + column * (TILE + GAP), top + line * PITCH
        tile, first = layer.crop[layer.shown.index(channel)], int(layer.repeats[channel])
        mark = (DEAD, " dead") if layer.dead[channel] else (TWIN, f" = {first + 1}") if first >= 0 else (None, "")
        canvas.words((x + TILE // 2, y), f"{channel + 1}{mark[1]}", anchor="ma", fill=mark[0] or GREY)
        canvas.picture((x, y + LINE), tile[None], (TILE, TILE))
        canvas.box((x, y + LINE), (TILE, TILE), edge=mark[0])
    return top + max(1, -(-len(shown) // COLUMNS)) * PITCH + GAP
