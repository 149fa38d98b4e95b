"""Why a synthesiser makes its images: walks between latents, the effect of each layer, memorised images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from upsweep.common.checks import at_least
from upsweep.explaining.canvas import GREY, LINE, Canvas
from upsweep.explaining.drawing import COLOURS
from upsweep.explaining.features import layers_of
from upsweep.explaining.section import Section
from upsweep.metrics.extractors import Extractor
from upsweep.metrics.figure import Figure
from upsweep.metrics.pairs import evenly
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.tasks.generation.data import fixed_latents
from upsweep.tasks.generation.pictures import STEPS, nearest_images, slerp
from upsweep.tasks.generation.task import Generation

FIGURES = (
    Figure(name="walk", title="step of a walk", unit="levels", better="lower", digits=1),
    Figure(name="jump", title="largest step of a walk", unit="times the mean", better="lower", digits=2),
)
HELD_OUT = 500  # training images, evenly drawn, whose own distance to the nearest other one is the yardstick
TILE, GAP, LABEL, BAR = 56, 4, 130, 140  # pixels of the pictures
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Looks:
    """What is tried and shown.

    Attributes:
        latents: of which images are made for the figures.
        walks: latents from which a walk is shown, shared out among the networks.
        shown: images of a row.
        share: of noise in a layer, as part of the standard deviation of each of its channels.
        seed: of that noise.
    """

    latents: int = 32
    walks: int = 8
    shown: int = 6
    share: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError: a number is out of range."""
        at_least("latents", 2, latents=self.latents)
        at_least("latents", 1, walks=self.walks, shown=self.shown)
        at_least("latents", 0, share=self.share)


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """The images that a network was trained on, (M, C, S, S) in whole levels, with their features (M, F)."""

    images: Tensor
    features: Tensor
    extractor: Extractor

    @classmethod
    def of(cls, task: Generation) -> "TrainedOn":
        """Those of a task, with the features that it judges by."""
        task.data.setup()
        return cls(task.data.training_images(), task.reference.training, task.extractor.cpu())


@dataclass(frozen=True, eq=False, kw_only=True)
class SampleCase:
    """A trained synthesiser.

    Attributes:
        name: what pictures and sentences call it.
        network: in evaluation mode.
        training: what it was trained on; None where that is not known.
    """

    name: str
    network: Synthesiser
    training: TrainedOn | None = None


# ---- between latents ----


def walks(latents: Tensor, steps: int) -> Tensor:
    """From each latent (N, L) to the next, and from the last to the first, on great circles: (N, steps + 1, L)."""
    shares = [step / steps for step in range(steps + 1)]
    return torch.stack([slerp(latents, latents.roll(-1, 0), share) for share in shares], dim=1)


def step_lengths(images: Tensor) -> Tensor:
    """The mean absolute difference of neighbours in grey levels: walks (N, T, C, S, S) in [0, 1] -> (N, T - 1)."""
    return 255 * images.diff(dim=1).abs().mean((2, 3, 4))


def latent_walks(cases: Sequence[SampleCase], asked: Looks) -> Section:
    """What a network makes of the latents on the way from one to the next, and how long the steps in the image are."""
    count = max(1, asked.walks // len(cases))
    canvas = Canvas(LABEL + (STEPS + 1) * (TILE + GAP))
    figures, said, y = dict[str, dict[str, float]](), [], 4
    for case in cases:
        latents = walks(fixed_latents(asked.latents, case.network.latent), STEPS)
        images = torch.stack([samples(case.network, way) for way in latents])
        lengths = step_lengths(images)
        mean, jump = float(lengths.mean()), float((lengths.amax(1) / lengths.mean(1).clamp(min=1e-12)).median())
        figures[case.name] = {"walk": mean, "jump": jump}
        said.append(
            f"{case.name}: a step of an eighth of the way changes a pixel by {mean:.1f} grey levels on average; the "
            f"largest step of a walk is {jump:.1f} times as long (1 would be an even walk)."
        )
        y = _heading(canvas, y, case)
        for number, row in enumerate(images[:count], start=1):
            y = _row(canvas, y, f"latent {number} to {number % len(images) + 1}", row)
        y += LINE
    return Section(
        name="latent_walks",
        title="Latent walks",
        picture=canvas.pixels,
        reading=(
            "A row goes from one latent to another in steps of equal length, on the great circle between them. Images "
            "that change gradually show that the network has learnt what lies between; a sudden change shows that it "
            "knows some images and nothing else; a row of equal images shows that it has collapsed."
        ),
        said=tuple(said),
        figures=figures,
    )


# ---- what each layer does ----


@torch.no_grad()
def with_noise(network: Synthesiser, layer: nn.Module, latents: Tensor, asked: Looks) -> Tensor:
    """Images (N, C, S, S) made while the features of one layer get noise of a share of their standard deviation.

    The deviation is that of each channel over the latents and all places; the noise is normal, and the same each time.
    """
    generator = torch.Generator().manual_seed(asked.seed)

    def disturb(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=generator).to(output)
        return output + asked.share * output.std((0, 2, 3), correction=0, keepdim=True) * noise

    handle = layer.register_forward_hook(disturb)
    try:
        return samples(network, latents, batch=len(latents))
    finally:
        handle.remove()


@torch.no_grad()
def without_scale(network: Synthesiser, norm: nn.Module, latents: Tensor) -> Tensor:
    """Images made while a norm of features has a scale of 1 and a shift of 0, whatever it has learnt."""
    name = next(name for name, module in network.named_modules() if module is norm)
    values, weight, bias = dict(network.named_parameters()), f"{name}.weight", f"{name}.bias"
    plain = {weight: torch.ones_like(values[weight]), bias: torch.zeros_like(values[bias])}
    made: Tensor = functional_call(network, plain, (latents.to(values[weight]),))
    return made.float().clamp(0, 1).cpu()


@dataclass(frozen=True, eq=False)
class Disturbed:
    """What becomes of images (N, C, S, S) while one layer is disturbed.

    Attributes:
        layer: its name in the decoder.
        plain: undisturbed.
        noise: with noise in its features.
        norm: without what its norm has learnt; None where it has no norm of features.
    """

    layer: str
    plain: Tensor
    noise: Tensor
    norm: Tensor | None

    @property
    def by_noise(self) -> float:
        """The mean absolute change of a pixel in grey levels."""
        return float(255 * (self.noise - self.plain).abs().mean())

    @property
    def by_norm(self) -> float | None:
        """The same without what the norm has learnt."""
        return None if self.norm is None else float(255 * (self.norm - self.plain).abs().mean())


def effects(network: Synthesiser, latents: Tensor, asked: Looks) -> Iterator[Disturbed]:
    """The layers of the decoder in the order of its modules, each disturbed alone."""
    plain = samples(network, latents)
    for name, layer in layers_of(network.decoder).items():
        norm = next(filter(_learns, layer.modules()), None)
        changed = None if norm is None else without_scale(network, norm, latents)
        yield Disturbed(name, plain, with_noise(network, layer, latents, asked), changed)


def _learns(module: nn.Module) -> bool:
    """Whether it is a norm of features that has learnt a scale and a shift."""
    kinds = nn.BatchNorm2d | nn.InstanceNorm2d | nn.GroupNorm | nn.LayerNorm
    return isinstance(module, kinds) and module.weight is not None and module.bias is not None


def layer_effects(cases: Sequence[SampleCase], asked: Looks) -> Section:
    """How much the images depend on each layer: on its features, and on what its norm has learnt."""
    latents = [fixed_latents(asked.latents, case.network.latent) for case in cases]
    found = {case.name: [*effects(case.network, some, asked)] for case, some in zip(cases, latents, strict=True)}
    most = max((max(one.by_noise, one.by_norm or 0) for each in found.values() for one in each), default=0)
    canvas = Canvas(LABEL + 2 * (asked.shown * (TILE + GAP) + BAR))
    canvas.words((LABEL, 4), f"features with noise of {asked.share:.0%}, and the change in grey levels", fill=GREY)
    canvas.words((_column(1, asked), 4), "norm without its scale and shift, and the change", fill=GREY)
    y = 4 + LINE + GAP
    for case in cases:
        y = _heading(canvas, y, case)
        for number, one in enumerate(found[case.name]):
            if number == 0:
                y = _effect(canvas, y, "undisturbed", [(one.plain, None), (one.plain, None)], most, asked)
            both = [(one.noise, one.by_noise), (one.norm, one.by_norm)]
            y = _effect(canvas, y, f"layer {one.layer}", both, most, asked)
        y += LINE
    return Section(
        name="layer_effects",
        title="What each layer does",
        picture=canvas.pixels,
        reading=(
            "A row makes images of the same latents with one layer disturbed, from the first layer down to the last. "
            f"On the left its features get noise of {asked.share:.0%} of the standard deviation of each channel; on "
            "the right its norm loses the scale and the shift that it has learnt. Where shapes change, the layer "
            "decides what is seen; where strokes and grain do, its style. A bar is the mean absolute change of a pixel."
        ),
        said=tuple(_most_in(name, each) for name, each in found.items()),
    )


def _most_in(name: str, found: Sequence[Disturbed]) -> str:
    """Which layer matters most."""
    if not found:
        return f"{name}: its decoder has no layers that can be disturbed one by one."
    ranked = sorted(found, key=lambda one: one.by_noise)
    said = f"{name}: noise changes most in layer {ranked[-1].layer} ({ranked[-1].by_noise:.1f} grey levels)"
    if len(found) > 1:
        said += f" and least in layer {ranked[0].layer} ({ranked[0].by_noise:.1f})"
    norms = [(change, one.layer) for one in found if (change := one.by_norm) is not None]
    if not norms:
        return f"{said}; it has no norm of features that learns."
    change, layer = max(norms)
    return f"{said}; without the scale and shift of its norm, layer {layer} changes the images most ({change:.1f})."


def _column(half: int, asked: Looks) -> int:
    """Where the left or the right half of a row of effects begins."""
    return LABEL + half * (asked.shown * (TILE + GAP) + BAR)


def _effect(
    canvas: Canvas, y: int, name: str, halves: Sequence[tuple[Tensor | None, float | None]], most: float, asked: Looks
) -> int:
    """A row: its name, and twice images with a bar of their change; gives the row of pixels below."""
    canvas.caption((4, y), name, width=LABEL - 8)
    for half, (images, value) in enumerate(halves):
        x = _column(half, asked)
        if images is None:
            canvas.words((x, y + TILE // 2), "no norm that learns here", anchor="lm", fill=GREY)
            continue
        for image in images[: asked.shown]:
            canvas.picture((x, y), image, (TILE, TILE))
            x += TILE + GAP
        if value is not None:
            width = round((BAR - 60) * value / most) if most else 0
            canvas.box((x, y + TILE // 4), (width, TILE // 2), fill=COLOURS[half])
            canvas.words((x + width + 4, y + TILE // 2), f"{value:.1f}", anchor="lm")
    return y + TILE + GAP


# ---- what was learnt by heart ----


def nearest_training_images(cases: Sequence[SampleCase], asked: Looks) -> Section:
    """Samples above the training images that are most like them, by the features of an extractor."""
    canvas, said, y = Canvas(LABEL + asked.walks * (TILE + GAP)), [], 4
    for case in cases:
        made = samples(case.network, fixed_latents(asked.walks, case.network.latent))
        y = _row(canvas, _heading(canvas, y, case), "samples", made)
        if (training := case.training) is None:
            said.append(f"{case.name}: its training images are not known, so none are shown.")
            y += LINE
            continue
        distances, near = nearest_images(training.extractor(made), training.images, training.features)
        for number, images in enumerate(near.unbind(1)):
            y = _row(canvas, y, "" if number else "nearest training images", images)
        ratios = distances[:, 0] / yardstick(training.features)
        for column, ratio in enumerate(ratios.tolist()):
            canvas.words((LABEL + column * (TILE + GAP) + TILE // 2, y), f"{ratio:.2f}", anchor="ma")
        canvas.words((4, y), "distance", fill=GREY)
        y += 2 * LINE
        said.append(
            f"{case.name}: a sample is {float(ratios.median()):.2f} times as far from its nearest training image as "
            f"training images are from theirs, and {float(ratios.min()):.2f} at least (a copy: 0), in the features of "
            f"the extractor {training.extractor.name}."
        )
    return Section(
        name="nearest_training_images",
        title="Nearest training images",
        picture=canvas.pixels,
        reading=(
            "Above are samples, below them the training images with the nearest features, the nearest first. Distance "
            "1 is the median distance between a training image and its own nearest one. A network that has memorised "
            "its images shows the same image twice in a column, at a distance near 0."
        ),
        said=tuple(said),
    )


def yardstick(features: Tensor) -> float:
    """The distance of a training image to the nearest other one, the median over at most 500: features (M, F)."""
    if len(features) < 2:
        return float("nan")
    some = evenly(features, HELD_OUT)
    return float(torch.cdist(some, features).topk(2, largest=False)[0][:, 1].median().clamp(min=1e-12))


def _heading(canvas: Canvas, y: int, case: SampleCase) -> int:
    """The name of a network; gives the row of pixels below."""
    return canvas.heading(y, case.name) + GAP


def _row(canvas: Canvas, y: int, name: str, images: Tensor) -> int:
    """Images (N, C, S, S) beside each other, behind a name; gives the row of pixels below."""
    canvas.caption((4, y), name, width=LABEL - 8)
    for column, image in enumerate(images):
        canvas.picture((LABEL + column * (TILE + GAP), y), image, (TILE, TILE))
    return y + TILE + GAP
