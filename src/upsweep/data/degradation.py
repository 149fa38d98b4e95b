"""How LR is made from HR: a chain of steps, done in the order in which they stand.

An image is a tensor (C, H, W) in [0, 1]: what the generator sees, so luma is degraded as the grey picture that it is.
One step of a chain shrinks; those before it see HR, those after it LR. Nothing is rounded or clipped but where a step
says so. Random numbers come only from the generator of numbers that is passed in.

A chain can be run on a whole image or on a window of it (`degrade_window`): what it gives inside the window is then the
same, since every step is given as many pixels around as it looks at, and JPEG its whole blocks of 8x8.
"""

import hashlib
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.random import Generator, Philox
from PIL import Image
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.imaging.files import to_uint8
from upsweep.imaging.resize import imresize, shrink

Strength = float | tuple[float, float]
"""A fixed strength, or the bounds between which it is drawn uniformly for every image or patch."""

VALIDATION = 2**64 - 1  # stands where training has the epoch
BLOCK = 8  # JPEG


class Window(NamedTuple):
    """Rows top to bottom and columns left to right of an image, the ends left out."""

    top: int
    bottom: int
    left: int
    right: int

    def around(self, pixels: int, size: tuple[int, int], multiple: int = 1) -> "Window":
        """The window with some pixels more on every side, out to whole blocks, as far as the image goes."""

        def wider(first: int, last: int, end: int) -> tuple[int, int]:
            low = (first - pixels) // multiple * multiple
            return max(0, low), min(end, -(-(last + pixels) // multiple) * multiple)

        return Window(*wider(self.top, self.bottom, size[0]), *wider(self.left, self.right, size[1]))

    def times(self, scale: int) -> "Window":
        """The same place in an image `scale` times as large."""
        return Window(*(edge * scale for edge in self))

    def within(self, outer: "Window") -> "Window":
        """The same place counted from the top left of `outer`."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    def of(self, image: Any) -> Any:
        """The pixels (..., bottom - top, right - left) of a tensor or an array, as a view."""
        return image[..., self.top : self.bottom, self.left : self.right]


class Step(ABC):
    """One thing that happens to an image. A frozen dataclass: its repr is what the cache knows it by."""

    shrinks: ClassVar[bool] = False
    before_shrinking: ClassVar[bool] = False  # where it belongs when a chain does not say where it shrinks

    @property
    def random(self) -> bool:
        """Whether two generators give two results."""
        return False

    def drawn(self, rng: Generator) -> Self:
        """The step with its strengths decided."""
        return self

    def needs(self, window: Window, size: tuple[int, int], scale: int) -> Window:
        """The window of its input (of `size`) that decides `window` of its output; after `drawn`."""
        return window

    @abstractmethod
    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        """Do it to a float image (C, H, W), after `drawn`; the result has its size, or (C, H / scale, W / scale)."""


class Varied(Step):
    """A step with one strength, its only field: a number, or two between which it is drawn uniformly.

    Raises:
        UserError: the strength is neither, or outside of the step's limits.
    """

    limits: ClassVar[tuple[float, float]]

    def __post_init__(self) -> None:
        ((name, given),) = vars(self).items()
        (low, high), pair = self.limits, given if isinstance(given, Sequence) else (given, given)
        fine = len(pair) == 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in pair)
        if not fine or not low <= pair[0] <= pair[1] <= high:
            raise UserError(
                f"degradation.{type(self).__name__.lower()}.{name}={given}: it must be a number from {low:g} to "
                f"{high:g}, or a range [low,high] of them."
            )
        first, last = map(float, pair)
        object.__setattr__(self, name, first if first == last else (first, last))  # the class is frozen

    @property
    def strength(self) -> Any:
        """The value of the field: a number after `drawn`."""
        (value,) = vars(self).values()
        return value

    @property
    def random(self) -> bool:
        return isinstance(self.strength, tuple)

    def drawn(self, rng: Generator) -> Self:
        strength = self.strength
        return cast(Any, type(self))(rng.uniform(*strength)) if isinstance(strength, tuple) else self


@dataclass(frozen=True)
class BicubicShrink(Step):
    """MATLAB's `imresize` in double: nothing is rounded, overshoots stay."""

    shrinks: ClassVar[bool] = True

    def needs(self, window: Window, size: tuple[int, int], scale: int) -> Window:
        return window.around(2, (size[0] // scale, size[1] // scale)).times(scale)  # as far as the kernel reaches

    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        return shrink(image, scale)


@dataclass(frozen=True)
class BicubicShrinkUint8(BicubicShrink):
    """MATLAB's `imresize` of a uint8 image, as in EDSR's files: rounded to 256 levels after each of its two passes."""

    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        # float64: rounding must not hang on the last bits of a float32
        levels = image.double().mul(255).round().clamp(0, 255).div(255)
        return imresize(levels, Fraction(1, scale), uint8=True).to(image.dtype)


@dataclass(frozen=True)
class Blur(Varied):
    """Gaussian blur of standard deviation `sigma` pixels, cut at three of them; borders mirrored, edge repeated."""

    sigma: Strength
    limits: ClassVar[tuple[float, float]] = (0, 50)
    before_shrinking: ClassVar[bool] = True

    def needs(self, window: Window, size: tuple[int, int], scale: int) -> Window:
        return window.around(_reach(self.strength), size)

    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        sigma = self.strength
        if sigma == 0:
            return image
        reach = _reach(sigma)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = (kernel / kernel.sum()).to(image.dtype)
        for axis in (-2, -1):
            index = _mirrored(image.shape[axis], reach)
            image = image.index_select(axis, index).unfold(axis, 2 * reach + 1, 1) @ kernel
        return image


@dataclass(frozen=True)
class Noise(Varied):
    """White Gaussian noise of standard deviation `sigma` (of 255 levels), independent in each channel; not clipped."""

    sigma: Strength
    limits: ClassVar[tuple[float, float]] = (0, 255)

    @property
    def random(self) -> bool:
        return self.sigma != 0

    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        field, sigma = torch.from_numpy(rng.standard_normal(image.shape, np.float32)), float(self.strength)
        return image + field.to(image.dtype) * (sigma / 255)


@dataclass(frozen=True)
class Jpeg(Varied):
    """Written as a JPEG file and read again: rounded to 256 levels, clipped, then compressed in blocks of 8x8.

    The image is grey or RGB; `quality` is libjpeg's, 1 to 100. The chroma is not subsampled (4:4:4), so that a block
    hangs on no other one. The blocks are counted from the top left of the whole image, for a patch too.
    """

    quality: Strength
    limits: ClassVar[tuple[float, float]] = (1, 100)

    def needs(self, window: Window, size: tuple[int, int], scale: int) -> Window:
        return window.around(0, size, BLOCK)

    def __call__(self, image: Tensor, scale: int, rng: Generator) -> Tensor:
        pixels, file = to_uint8(image), io.BytesIO()
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        picture.save(file, "JPEG", quality=round(self.strength), subsampling=0)
        read = np.array(Image.open(file), np.uint8).reshape(pixels.shape)
        return torch.from_numpy(read).permute(2, 0, 1).to(image.dtype) / 255


@dataclass(frozen=True)
class Chain:
    """Steps, in their order, exactly one of which shrinks; else UserError is raised."""

    steps: tuple[Step, ...] = (BicubicShrink(),)

    def __post_init__(self) -> None:
        shrinking = [type(step).__name__ for step in self.steps if step.shrinks]
        if len(shrinking) != 1:
            raise UserError(f"degradation={self}: exactly one step must shrink the image, but {len(shrinking)} do.")

    def __str__(self) -> str:
        return ", ".join(map(repr, self.steps))

    @classmethod
    def of(cls, steps: "Mapping[str, Step] | None") -> "Chain":
        """The chain of a config's steps, in their order.

        Where none of them shrinks, the image is shrunk bicubically after the last blur, and so before noise and JPEG:
        a lens blurs before a sensor counts.

        Raises:
            UserError: something is not a step, or several shrink.
        """
        for name, step in (steps or {}).items():
            if not isinstance(step, Step):
                raise UserError(f"degradation.{name}={step!r} is not a step of a degradation (see docs/data.md).")
        chain = list((steps or {}).values())
        if not any(step.shrinks for step in chain):
            last = max((i + 1 for i, step in enumerate(chain) if step.before_shrinking), default=0)
            chain.insert(last, BicubicShrink())
        return cls(tuple(chain))

    @property
    def own(self) -> dict[str, str]:
        """The classes of steps that are not upsweep's, and a digest of the module of each: what a repr does not say."""
        kinds = {kind for step in self.steps for kind in type(step).__mro__ if issubclass(kind, Step)}
        own = {}
        for kind in kinds:
            if kind.__module__.partition(".")[0] != "upsweep":
                file = Path(getattr(sys.modules.get(kind.__module__), "__file__", None) or "")
                code = file.read_bytes() if file.is_file() else b""
                own[f"{kind.__module__}.{kind.__qualname__}"] = hashlib.sha256(code).hexdigest()
        return dict(sorted(own.items()))

    def split(self) -> tuple["Chain", tuple[Step, ...]]:
        """What can be done once to whole images, and the steps that are left for each patch.

        The first is everything before the first random step, if that includes the shrinking; else the plain bicubic
        shrink, and the second is all steps, which then begin with HR.
        """
        first = next((i for i, step in enumerate(self.steps) if step.random), len(self.steps))
        if any(step.shrinks for step in self.steps[:first]):
            return Chain(self.steps[:first]), self.steps[first:]
        return BICUBIC, self.steps

    def __call__(self, hr: Tensor, scale: int, rng: Generator) -> Tensor:
        """LR (C, H / scale, W / scale) of a whole HR (C, H, W) whose sides divide by the scale."""
        return degrade(self.steps, hr, scale, rng)


BICUBIC = Chain()


def degrade(steps: Iterable[Step], image: Tensor, scale: int, rng: Generator) -> Tensor:
    """Do the steps to a whole image (C, H, W), all strengths decided first."""
    for step in [step.drawn(rng) for step in steps]:
        image = step(image, scale, rng)
    return image


def degrade_window(steps: Sequence[Step], image: Any, window: Window, scale: int, rng: Generator) -> Tensor:
    """What `degrade` would give in a window of its output, float32, from no more of the image than decides it.

    Args:
        steps: in their order.
        image: array or tensor (C, H, W), uint8 levels or floats: the input of the first step.
        window: of the output of the last step.
        scale: HR pixels per LR pixel.
        rng: noise is drawn for the pixels that are looked at; all other steps agree with `degrade` to rounding.
    """
    return _window([step.drawn(rng) for step in steps], image, window, scale, rng)


def _window(steps: Sequence[Step], image: Any, window: Window, scale: int, rng: Generator) -> Tensor:
    """`degrade_window` of steps whose strengths are decided: the last one, done to what those before it give."""
    if not steps:
        cut = np.ascontiguousarray(window.of(image))
        x = torch.from_numpy(cut.astype(np.float32))
        return x.div_(255) if cut.dtype == np.uint8 else x
    *before, last = steps
    shrunk = scale if any(step.shrinks for step in before) else 1
    seen = last.needs(window, (image.shape[-2] // shrunk, image.shape[-1] // shrunk), scale)
    made = last(_window(before, image, seen, scale, rng), scale, rng)
    outer = Window(*(edge // scale for edge in seen)) if last.shrinks else seen
    return cast(Tensor, window.within(outer).of(made))


def stream(seed: int, epoch: int, index: int) -> Generator:
    """Random numbers that are a pure function of the arguments, and differ from those that place a patch.

    The counter of Philox has 256 bits: patches count in the lowest word
    (`upsweep.tasks.super_resolution.patches.draw`), this begins at block `index` of a part that they never reach.
    """
    key = np.array([seed % 2**64, epoch], np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, 0, index, 1], np.uint64)))


def stream_of(name: str) -> Generator:
    """The random numbers of a whole image, by its name alone: every seed is validated on the same LR."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return stream(0, VALIDATION, int.from_bytes(digest[:8], "big"))


def _reach(sigma: float) -> int:
    return ceil(3 * sigma)


@lru_cache(maxsize=64)
def _mirrored(size: int, reach: int) -> Tensor:
    """Which pixel stands at -reach, ..., size + reach - 1."""
    return torch.from_numpy(np.pad(np.arange(size), reach, mode="symmetric"))
