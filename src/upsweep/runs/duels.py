"""From measurements to sentences: problems of a network that makes images from latents, and of its discriminator.

Plain functions of plain values, as in `upsweep.runs.verdicts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upsweep.runs.verdicts import Sentence

# Chosen so that every network built to have a problem is found, and none without it (tests/test_duels.py).
CERTAIN = 0.999  # of all pairs of a real and a made image, the share that the discriminator tells apart ...
FAR = 0.2  # ... while the samples' energy distance to real images is above this ...
NEARER = 0.9  # ... and above this share of what it was at the look before ...

VANISHED = 1e-2  # ... or while the gradient at the made images is less than this share of that at the first look
ALIKE = 0.5  # mean distance between samples, over that between real images
BY_HEART = 0.75  # chance that an image that it learns from looks more real than another, ...
ERRORS = 4.0  # ... by so many standard errors of a guess
OFF = 0.5  # standard deviations of a batch's features between a norm's running mean and theirs
UNLIKE = 2.0  # a norm's running deviation over that of a batch, or the other way round


@dataclass(frozen=True, kw_only=True)
class Norms:
    """A norm's running statistics beside those of a batch of samples; `name` is the layer's.

    Attributes:
        offset: distance of the means in the batch's standard deviations, root mean square over channels.
        ratio: of the deviations, the larger over the smaller, geometric mean over channels.
    """

    name: str
    offset: float
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Duel:
    """A look at samples beside real images, and at what a discriminator makes of them; `epoch` counts from 1.

    None is what was not measured: there is no discriminator, or no norm that keeps statistics.

    Attributes:
        diversity: mean distance between two samples, over that between two real images.
        energy: energy distance of samples to real images, over the mean distance between two real images: 0 is alike.
        told_apart: chance that a real image, held out, gets a larger logit than a sample: 0.5 is a guess.
        gradient: mean norm of the gradient of the generator's loss at a sample.
        by_heart: chance that an image of the training gets a larger logit than one held out: 0.5 is a guess.
        by_heart_error: the standard error of `by_heart` where it is a guess.
        norms: the norm whose statistics are furthest off.
    """

    epoch: int
    diversity: float
    energy: float
    told_apart: float | None = None
    gradient: float | None = None
    by_heart: float | None = None
    by_heart_error: float | None = None
    norms: Norms | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Duel":
        """From plain values."""
        norms = said["norms"]
        return cls(**{**said, "norms": None if norms is None else Norms(**norms)})

    def numbers(self) -> dict[str, float]:
        """The measurements by name, for logs."""
        own = ("diversity", "energy", "told_apart", "gradient", "by_heart", "by_heart_error")
        found = {key: getattr(self, key) for key in own}
        if self.norms is not None:
            found |= {"norm_offset": self.norms.offset, "norm_ratio": self.norms.ratio}
        return {key: value for key, value in found.items() if value is not None}


def sentences(duels: Sequence[Duel], *, covered: float | None = None) -> list[Sentence]:
    """What the last look says, beside those before: a sentence for each problem that was measured.

    `covered` is the share of real images that have a sample like them (recall), where a figure of the task measures it.
    """
    if not duels:
        return []
    last = duels[-1]
    said = [_too_strong(duels)] if last.told_apart is not None else []
    said += [_by_heart(last.by_heart, last.by_heart_error or 0.0)] if last.by_heart is not None else []
    return [*said, _collapse(last, covered), *([_norms(last.norms)] if last.norms is not None else [])]


def _too_strong(duels: Sequence[Duel]) -> Sentence:
    """Only measures without a scale are used: the scale of logits differs from loss to loss."""
    first, before, last = duels[0], duels[-2:][0], duels[-1]
    certain, still = ((duel.told_apart or 0.0) >= CERTAIN for duel in (before, last))
    stands = len(duels) > 1 and certain and last.energy > max(FAR, NEARER * before.energy)
    left = (last.gradient or 0.0) / first.gradient if first.gradient else 1.0
    numbers = (
        f"it tells {last.told_apart or 0.0:.1%} of the pairs of a held-out and a made image apart, the samples' energy "
        f"distance to real images is {last.energy:.2g} ({before.energy:.2g} at epoch {before.epoch}), and the "
        f"gradient at the made images is {left:.2g} times that of epoch {first.epoch}"
    )
    if not (still and (stands or left < VANISHED)):
        return Sentence("strong discriminator", False, f"The discriminator is not too strong: {numbers}.", "adversary")
    cure = (
        "adversary.r1=1, adversary.recipe.norm=spectral, a smaller adversary.optimizer.lr or adversary=r3gan would help"
    )
    text = f"The discriminator is too strong: {numbers}. The generator learns little from it. {cure}."
    return Sentence("strong discriminator", True, text, "adversary")


def _by_heart(chance: float, error: float) -> Sentence:
    numbers = (
        f"a training image looks more real to it than a held-out one with a probability of {chance:.2f} "
        f"(by chance: 0.50 +- {error:.2f})"
    )
    if chance < max(BY_HEART, 0.5 + ERRORS * error):
        return Sentence(
            "memorising discriminator", False, f"The discriminator does not memorise its images: {numbers}.", "data"
        )
    cure = "More images (data=mnist, say), data.flip=true, adversary.r1=1 or a smaller adversary.discriminator.width"
    text = f"The discriminator memorises its images: {numbers}. {cure} would help."
    return Sentence("memorising discriminator", True, text, "data")


def _collapse(last: Duel, covered: float | None) -> Sentence:
    numbers = f"two samples are {last.diversity:.2g} times as far apart as two real images"
    numbers += "" if covered is None else f", and {covered:.0%} of the real images have a sample like them"
    if last.diversity >= ALIKE:
        return Sentence("mode collapse", False, f"The samples are not too similar: {numbers}.", "adversary")
    cure = "a smaller generator.kl_weight would help"
    if last.told_apart is not None:
        cure = "adversary=r3gan or wgan_gp, adversary.r1=1 or a smaller optimizer.lr would help"
    return Sentence("mode collapse", True, f"The samples are too similar: {numbers}. {cure}.", "adversary")


def _norms(norms: Norms) -> Sentence:
    numbers = (
        f"at {norms.name} the running means are {norms.offset:.2g} standard deviations off those of a batch, "
        f"and the deviations differ by a factor of {norms.ratio:.2g}"
    )
    if norms.offset < OFF and norms.ratio < UNLIKE:
        return Sentence("norm statistics", False, f"The norms' running statistics fit: {numbers}.", "norm")
    cure = "A longer training, a larger norm.momentum, callbacks.ema.decay=0 or norm=group would help"
    text = f"The norms' running statistics are off, so the judged network is not the trained one: {numbers}. {cure}."
    return Sentence("norm statistics", True, text, "norm")
