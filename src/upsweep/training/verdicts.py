"""From measurements to sentences: do gradients vanish or explode, does the network overfit, what does it cost.

Plain functions of plain values. The article that this project follows names these three problems; a sentence about
each has the numbers that it rests on, and the config group that bears on it.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

Problem = Literal["vanishing gradients", "exploding gradients", "overfitting", "cost"]

# So chosen that each network is accused that was built to have the problem, and none that surely has not
# (tests/test_diagnoses.py); most generators of this project were looked at for 40 steps beside them.
FADED = 1e-4  # what is left of the gradient at the first layer, of that at the last
GROWN = 1e4
DEAD = 0.75  # share of a layer's channels
SATURATED = 0.5  # share of a layer's values
GAP = 1.0  # dB: how much less is gained over bicubic in validation than on the training images ...
ERRORS = 2.0  # ... and by how many standard errors
FALL = 0.1  # dB: what the validation lost since its best, while the training images gained as much
COSTLY = 100_000  # multiply-adds for a pixel of the output


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer with weights, and the activation that follows it, in the order in which an image passes them.

    None is what was not measured, or does not apply. Norms are Euclidean.

    Attributes:
        name: below the generator; with `:2` where it is passed a second time.
        activation: its class, None where none follows.
        gradient_norm: of the loss in the layer's weights.
        weight_norm: of these.
        gradient_to_weight: the one over the other.
        signal: norm of the loss's gradient in the layer's output, over that in the last layer's output.
        mean, deviation: of the activation's output (the layer's, where none follows).
        saturated: share of a sigmoid's or tanh's values that lie near an end of its range.
        channels: of a ReLU's output.
        silent: those of them that it left at 0 everywhere.
    """

    name: str
    activation: str | None = None
    gradient_norm: float | None = None
    weight_norm: float | None = None
    gradient_to_weight: float | None = None
    signal: float | None = None
    mean: float | None = None
    deviation: float | None = None
    saturated: float | None = None
    channels: int | None = None
    silent: tuple[int, ...] | None = None

    @property
    def dead(self) -> float | None:
        """Share of a ReLU's channels that are 0 everywhere."""
        return None if self.silent is None or not self.channels else len(self.silent) / self.channels

    def row(self) -> dict[str, str | float | None]:
        """The measurements as plain values, for logs."""
        numbers = {key: getattr(self, key) for key in NUMBERS}
        return {"name": self.name, "activation": self.activation, **numbers, "dead": self.dead}


NUMBERS = tuple(f.name for f in fields(Layer) if f.name not in ("name", "activation", "channels", "silent"))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the network made of training images and of validation images, both in dB under the same protocol.

    A gain is over bicubic on the same images: it can be compared between images of unlike detail.

    Attributes:
        epoch: counted from 1.
        error: standard error of the difference of the two mean gains, from image to image; None if unknown.
        checkerboard: energy of the response to a constant image, see `upsweep.metrics.checkerboard`.
    """

    epoch: int
    train_psnr: float
    train_gain: float
    val_psnr: float
    val_gain: float
    error: float | None = None
    checkerboard: float = 0.0

    @property
    def gap(self) -> float:
        """How much more is gained on the training images, dB."""
        return self.train_gain - self.val_gain


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the network costs; `seconds_per_megapixel` of output, on `device`, None if it was not timed."""

    parameters: int
    macs_per_pixel: float
    seconds_per_megapixel: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Sentence:
    """What is to be said of a problem: whether it is there, in words and numbers, and which config group helps."""

    problem: Problem
    found: bool
    text: str
    group: str


def overall(samples: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Layer by layer, the median of every measurement over the samples of a run.

    A channel is silent that was so in every sample of the run's second half: one that only waits for its feature has
    spoken until then.
    """
    by_name: dict[str, list[Layer]] = {}
    for sample in samples:
        for layer in sample:
            by_name.setdefault(layer.name, []).append(layer)
    return [_middle(seen) for seen in by_name.values()]


def _middle(seen: Sequence[Layer]) -> Layer:
    medians: dict[str, Any] = {key: _median(getattr(layer, key) for layer in seen) for key in NUMBERS}
    return replace(seen[-1], silent=_always(layer.silent for layer in seen[len(seen) // 2 :]), **medians)


def sentences(
    layers: Sequence[Layer], judgements: Sequence[Judgement], price: Price, diverged: str | None = None
) -> list[Sentence]:
    """One sentence on the gradients, one on overfitting where it was judged, one on the cost.

    Args:
        layers: from the first to the last.
        judgements: from the first to the last.
        price: of the network.
        diverged: why the training ended, if its loss was no longer finite.
    """
    said = [_gradients(layers, diverged)]
    if judgements:
        said.append(_overfitting(judgements))
    return [*said, _cost(price)]


def _gradients(layers: Sequence[Layer], diverged: str | None) -> Sentence:
    reach = _reach(layers)
    dead = _worst(layers, "dead")
    saturated = _worst(layers, "saturated")
    if diverged is not None or (reach is not None and reach > GROWN):
        largest = _worst(layers, "gradient_to_weight")
        why = [] if diverged is None else [diverged]
        if reach is not None and reach > GROWN:
            why.append(f"the gradient is {reach:.2g} times larger at the first layer than at the last")
        elif largest is not None:
            why.append(f"the largest gradient, of {largest[0]}, was {largest[1]:.2g} times its weights' norm")
        group = "init" if reach is not None and reach > GROWN else "optimizer"
        cure = "init=he" if group == "init" else "a smaller optimizer.lr"
        return Sentence(
            "exploding gradients",
            True,
            f"Gradients explode: {'; '.join(why)}. {cure}, trainer.gradient_clip_val=1 or norm=bn would help.",
            group,
        )
    if dead is not None and dead[1] >= DEAD:
        return Sentence(
            "vanishing gradients",
            True,
            f"Dead units: {dead[1]:.0%} of the channels after {dead[0]} are 0 on every pixel, and pass no gradient. "
            "activation=prelu or leaky_relu would help, or a smaller optimizer.lr.",
            "activation",
        )
    if reach is not None and reach < FADED:
        at = f"of the gradient at the last layer {_share(reach)} is left at the first, {len(layers) - 1} layers before"
        if saturated is not None:
            more = (
                ""
                if saturated[1] < SATURATED
                else f"; {saturated[1]:.0%} of the values after {saturated[0]} are saturated"
            )
            return Sentence(
                "vanishing gradients",
                True,
                f"Gradients vanish: {at}{more}. activation=relu or prelu would help, and norm=bn.",
                "activation",
            )
        return Sentence(
            "vanishing gradients", True, f"Gradients vanish: {at}. init=he or xavier would help, and norm=bn.", "init"
        )
    if saturated is not None and saturated[1] >= SATURATED:
        return Sentence(
            "vanishing gradients",
            True,
            f"Saturated units: {saturated[1]:.0%} of the values after {saturated[0]} lie where the activation is flat. "
            "activation=relu or prelu would help, and norm=bn.",
            "activation",
        )
    numbers = [] if reach is None else [f"at the first layer they are {reach:.2g} times those at the last"]
    if dead is not None:
        numbers.append(f"at most {dead[1]:.0%} of a layer's units are dead")
    if saturated is not None:
        numbers.append(f"at most {saturated[1]:.0%} of a layer's values are saturated")
    return Sentence(
        "vanishing gradients",
        False,
        f"Gradients neither vanish nor explode: {', '.join(numbers) or 'nothing was measured'}.",
        "init",
    )


def _reach(layers: Sequence[Layer]) -> float | None:
    """The gradient at the first layer over that at the last: in their outputs, or else in their weights."""
    known = [layer.signal for layer in layers if layer.signal is not None]
    if len(known) > 1:
        return known[0]
    norms = [layer.gradient_norm for layer in layers if layer.gradient_norm is not None]
    return norms[0] / norms[-1] if len(norms) > 1 and norms[-1] > 0 else None


def _overfitting(judgements: Sequence[Judgement]) -> Sentence:
    last, best = judgements[-1], max(judgements, key=lambda j: j.val_gain)
    fall, rise = best.val_gain - last.val_gain, last.train_gain - best.train_gain
    numbers = (
        f"the network gains {last.train_gain:+.2f} dB over bicubic on training images and {last.val_gain:+.2f} dB in "
        "validation"
    )
    clear = last.error is not None and last.gap > ERRORS * last.error
    if fall >= FALL and rise >= FALL:
        text = (
            f"It overfits: {numbers}, where it lost {fall:.2f} dB since epoch {best.epoch}. A shorter training, more "
            "images (data.root=...), a smaller generator or dropout=p20 would help."
        )
        return Sentence("overfitting", True, text, "dropout")
    if last.gap >= GAP and clear and last.val_gain < last.train_gain / 2:
        text = (
            f"It overfits: {numbers}. More images (data.root=...), data.augment=true, a smaller generator or "
            "dropout=p20 would help."
        )
        return Sentence("overfitting", True, text, "dropout")
    return Sentence("overfitting", False, f"No sign of overfitting: {numbers}.", "dropout")


def _cost(price: Price) -> Sentence:
    seconds = price.seconds_per_megapixel
    numbers = f"{price.parameters:,} parameters, {price.macs_per_pixel:,.0f} multiply-adds a pixel"
    if seconds is not None:
        numbers += f", {seconds:.2g} s a megapixel on {price.device}"
    if price.macs_per_pixel <= COSTLY:
        return Sentence("cost", False, f"It costs little: {numbers}.", "generator")
    return Sentence(
        "cost", True, f"It is costly: {numbers}. generator=fsrcnn, or less generator.width, costs less.", "generator"
    )


def _worst(layers: Iterable[Layer], key: str) -> tuple[str, float] | None:
    known = [(layer.name, value) for layer in layers if (value := getattr(layer, key)) is not None]
    return max(known, key=lambda pair: pair[1], default=None)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None


def _always(masks: Iterable[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    known = [set(mask) for mask in masks if mask is not None]
    return tuple(sorted(set.intersection(*known))) if known else None


def _share(value: float) -> str:
    return "nothing" if value == 0 else f"{value:.1e}"
