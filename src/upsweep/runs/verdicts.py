"""From measurements to sentences: whether gradients vanish or explode, whether the network overfits, what it costs.

Plain functions of plain values. The article 反卷积神经网络的优化技巧 (docs/claims.md) names these three problems.
A sentence about each gives its numbers, and the config group that helps.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from upsweep.metrics.figure import Figure
from upsweep.runs.layout import DIAGNOSES
from upsweep.runs.record import checked, read, values_in

VERSION = 1  # of diagnoses.json
Problem = Literal[
    "vanishing gradients",
    "exploding gradients",
    "overfitting",
    "below the baseline",
    "cost",
    # of networks that make images from latents, see `upsweep.runs.duels`
    "strong discriminator",
    "memorising discriminator",
    "mode collapse",
    "norm statistics",
]

# Chosen so that every network built to have a problem is found, and none without it
# (tests/test_diagnoses.py); most generators of this project were also looked at for 40 steps.
FADED = 1e-4  # gradient at the first layer over that at the last
GROWN = 1e4
DEAD = 0.75  # share of a layer's channels
SATURATED = 0.5  # share of a layer's values
GAP = 20  # times what is noise: how much smaller the lead is in validation than on the training images ...
ERRORS = 2.0  # ... and by how many standard errors
FALL = 2  # times what is noise: what the validation lost since its best, while the training images won as much
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
    """The headline on training images and on validation images, under the same protocol; `epoch` counts from 1.

    A lead is how much it is better than the baseline on the same images, so that different images can be compared.
    `error` is the standard error of the difference of the two mean leads, from image to image, None if unknown;
    `checkerboard` the energy of the response to a constant image, see `upsweep.metrics.checkerboard`.
    """

    epoch: int
    train: float
    train_lead: float
    val: float
    val_lead: float
    error: float | None = None
    checkerboard: float = 0.0

    @property
    def gap(self) -> float:
        """By how much the lead is larger on the training images."""
        return self.train_lead - self.val_lead

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Judgement":
        """From plain values, also those of upsweep 0.1, which knew PSNR and its gain alone."""
        old = {"train_psnr": "train", "train_gain": "train_lead", "val_psnr": "val", "val_gain": "val_lead"}
        return cls(**{old.get(key, key): value for key, value in said.items()})


@dataclass(frozen=True, kw_only=True)
class Price:
    """What the network costs; `seconds_per_megapixel` of output, on `device`, None if it was not timed."""

    parameters: int
    macs_per_pixel: float
    seconds_per_megapixel: float | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Sentence:
    """A sentence on a problem: whether it was found, in words and numbers, and which config group helps."""

    problem: Problem
    found: bool
    text: str
    group: str


@dataclass(frozen=True)
class Diagnosis:
    """What diagnoses.json holds: sentences, and the measurements that they rest on."""

    sentences: Sequence[Sentence]
    layers: Sequence[Mapping[str, Any]]
    judgements: Sequence[Judgement]
    cost: Price
    duels: Sequence[Mapping[str, Any]] = ()


def read_sentences(folder: Path) -> list[Sentence]:
    """The sentences of the run in `folder`; none where there is no diagnosis. Raises UnreadableError."""

    def reader(path: Path) -> list[Sentence]:
        return [checked(Sentence(**said)) for said in values_in(path, VERSION)["sentences"]]

    return read(reader, folder / DIAGNOSES) or []


def overall(samples: Sequence[Sequence[Layer]]) -> list[Layer]:
    """Layer by layer, the median of every measurement over the samples of a run.

    A channel counts as silent if it was silent in every sample of the run's second half: a channel
    for a rare feature has been active by then.
    """
    by_name = defaultdict[str, list[Layer]](list)
    for layer in chain.from_iterable(samples):
        by_name[layer.name].append(layer)
    return [_middle(seen) for seen in by_name.values()]


def _middle(seen: Sequence[Layer]) -> Layer:
    medians: dict[str, Any] = {key: _median(getattr(layer, key) for layer in seen) for key in NUMBERS}
    masks = [set(layer.silent) for layer in seen[len(seen) // 2 :] if layer.silent is not None]
    return replace(seen[-1], silent=tuple(sorted(set.intersection(*masks))) if masks else None, **medians)


def sentences(
    layers: Sequence[Layer], judgements: Sequence[Judgement], cost: Price, headline: Figure, diverged: str | None = None
) -> list[Sentence]:
    """One sentence on the gradients, one on overfitting if it was judged (by `headline`), one on the cost.

    One more where the network is worse than the headline's baseline.

    `diverged` says why the training ended, if its loss was no longer finite.
    """
    overfitting = [_overfitting(judgements, headline)] if judgements else []
    known = [_gradients(layers, diverged), *overfitting]
    below = _below(judgements, headline, ails=any(sentence.found for sentence in known))
    return [*known, *below, _cost(cost)]


def _gradients(layers: Sequence[Layer], diverged: str | None) -> Sentence:
    reach, (dead_in, dead), (flat_in, flat) = _reach(layers), _worst(layers, "dead"), _worst(layers, "saturated")
    if diverged is not None or reach > GROWN:
        return _exploding(layers, reach, diverged)
    flat_values = f"{flat:.0%} of the values after {flat_in}"
    group, cure = "activation", "activation=relu or prelu would help, and norm=bn"
    if dead >= DEAD:
        text = f"Dead units: {dead:.0%} of the channels after {dead_in} are 0 on every pixel, and pass no gradient"
        cure = "activation=prelu or leaky_relu would help, or a smaller optimizer.lr"
    elif reach < FADED:
        left, behind = f"{reach:.1e}" if reach else "0", f"{len(layers) - 1} layers behind it"
        text = f"Gradients vanish: at the first layer they are {left} times those at the last, {behind}"
        text += f"; {flat_values} are saturated" if flat >= SATURATED else ""
        if math.isnan(flat):
            group, cure = "init", "init=he or xavier would help, and norm=bn"
    elif flat >= SATURATED:
        text = f"Saturated units: {flat_values} lie where the activation is flat"
    else:
        numbers = {
            f"at the first layer they are {reach:.2g} times those at the last": reach,
            f"at most {dead:.0%} of a layer's units are dead": dead,
            f"at most {flat:.0%} of a layer's values are saturated": flat,
        }
        measured = ", ".join(said for said, number in numbers.items() if not math.isnan(number))
        text = f"Gradients neither vanish nor explode: {measured or 'nothing was measured'}."
        return Sentence("vanishing gradients", False, text, "init")
    return Sentence("vanishing gradients", True, f"{text}. {cure}.", group)


def _exploding(layers: Sequence[Layer], reach: float, diverged: str | None) -> Sentence:
    (largest_in, largest), why = _worst(layers, "gradient_to_weight"), [] if diverged is None else [diverged]
    group, cure = "optimizer", "a smaller optimizer.lr"
    if reach > GROWN:
        why.append(f"the gradient is {reach:.2g} times larger at the first layer than at the last")
        group, cure = "init", "init=he"
    elif not math.isnan(largest):
        why.append(f"the largest gradient, of {largest_in}, was {largest:.2g} times its weights' norm")
    text = f"Gradients explode: {'; '.join(why)}. {cure}, trainer.gradient_clip_val=1 or norm=bn would help."
    return Sentence("exploding gradients", True, text, group)


def _reach(layers: Sequence[Layer]) -> float:
    """The gradient at the first layer over that at the last, in their outputs or else in their weights; or nan."""
    known = [layer.signal for layer in layers if layer.signal is not None]
    if len(known) > 1:
        return known[0]
    norms = [layer.gradient_norm for layer in layers if layer.gradient_norm is not None]
    return norms[0] / norms[-1] if len(norms) > 1 and norms[-1] > 0 else math.nan


def _overfitting(judgements: Sequence[Judgement], headline: Figure) -> Sentence:
    last, best = judgements[-1], max(judgements, key=lambda j: j.val_lead)
    fall, rise = best.val_lead - last.val_lead, last.train_lead - best.train_lead
    numbers = (
        f"the network {headline.margin}s {headline.text(last.train_lead, '+')} over {headline.baseline} on training "
        f"images and {headline.text(last.val_lead, '+')} in validation"
    )
    if headline.behind(last.train_lead) or headline.behind(last.val_lead):  # nothing is gained
        on_training, in_validation = headline.standing(last.train_lead), headline.standing(last.val_lead)
        numbers = f"on training images the network is {on_training}, in validation {in_validation}"
    clear = last.error is not None and last.gap > ERRORS * last.error
    if fall > 0 and min(fall, rise) >= FALL * headline.noise:
        numbers += f", where it lost {headline.text(fall)} since epoch {best.epoch}"
        cure = "A shorter training, more images (data.root=...)"
    elif last.gap >= GAP * headline.noise and clear and last.val_lead < last.train_lead / 2:
        cure = "More images (data.root=...), data.augment=true"
    else:
        return Sentence("overfitting", False, f"No sign of overfitting: {numbers}.", "dropout")
    text = f"It overfits: {numbers}. {cure}, a smaller generator or dropout=p20 would help."
    return Sentence("overfitting", True, text, "dropout")


def _below(judgements: Sequence[Judgement], headline: Figure, *, ails: bool) -> list[Sentence]:
    """The sentence on a network that is worse than the baseline; nothing on any other.

    `ails`: whether another sentence says what would help already.
    """
    if not judgements or not headline.behind((last := judgements[-1]).val_lead):
        return []
    standing = headline.standing(last.val_lead)
    text = f"{standing[0].upper()}{standing[1:]} in validation: {headline.baseline} alone is better"
    rising = len(judgements) > 1 and last.val_lead - judgements[-2].val_lead >= headline.noise
    if ails:
        text += ". First see the problems above."
    elif rising or len(judgements) == 1:
        was = "It was still rising" if rising else "It was judged once"
        text += f". {was}: more steps (trainer.max_epochs=...) would help."
    else:
        text += ". It no longer rises: a smaller optimizer.lr or another init would help; so would "
        text += f"generator.skip={headline.baseline}, where that is not set yet."
    return [Sentence("below the baseline", True, text, "generator")]


def _cost(price: Price) -> Sentence:
    costly = price.macs_per_pixel > COSTLY
    text = "It is costly" if costly else "It costs little"
    text += f": {price.parameters:,} parameters, {price.macs_per_pixel:,.0f} multiply-adds a pixel"
    if price.seconds_per_megapixel is not None:
        text += f", {price.seconds_per_megapixel:.2g} s a megapixel on {price.device}"
    cure = " A smaller generator.width or another generator costs less." if costly else ""
    return Sentence("cost", costly, f"{text}.{cure}", "generator")


def _worst(layers: Iterable[Layer], key: str) -> tuple[str, float]:
    """The layer with the largest value, and the value; nan if there is none."""
    known = [(layer.name, value) for layer in layers if (value := getattr(layer, key)) is not None]
    return max(known, key=lambda pair: pair[1], default=("", math.nan))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.median(known) if known else None
