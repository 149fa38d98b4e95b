"""Samples of a synthesiser as files: single images, a grid of them, an animated walk between their latents."""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.common.files import hold_to_new, write_whole
from upsweep.common.progress import Bar
from upsweep.imaging import marks
from upsweep.imaging.files import Picture, to_uint8
from upsweep.imaging.writing import write_image
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.sampling.latents import latents
from upsweep.tasks.generation.pictures import grid, walk

GRID, IMAGES, WALK = "grid.png", "images", "walk"  # names in the folder
ON_THE_GRID = 400  # images at most
FRAME = 256  # pixels: small frames of a walk are enlarged to about that
FRAME_MS = 50  # what every frame of a walk is shown for
MOST_FRAMES = 1000

Walk = Literal["webp", "gif"]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is to be made.

    Attributes:
        count: of samples, each in a file of its own.
        seed: of their latents.
        truncation: see `latents`.
        batch: how many are made at once.
        walk: True or `webp` for an animated WebP of a walk from latent to latent, and back to the first; or `gif`.
        stops: how many of the latents the walk passes.
        steps: frames from one of them to the next.

    Raises:
        UserError: a number is out of range, or the walk has fewer than two latents or more than 1,000 frames.
    """

    count: int = 64
    seed: int = 1
    truncation: float | None = None
    batch: int = 64
    walk: bool | str | None = None
    stops: int = 8
    steps: int = 16

    def __post_init__(self) -> None:
        for name in ("count", "batch", "stops", "steps"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be a whole number of at least 1.")
        t = self.truncation
        if t is not None and (isinstance(t, bool) or not isinstance(t, int | float) or not 0 < t < math.inf):
            raise UserError(f"truncation={t} must be a number above 0, such as 0.7, or null.")
        if self.walk not in (None, False, True, "webp", "gif"):
            raise UserError(f"walk={self.walk} must be true, webp, gif or null.")
        if not -(2**63) <= self.seed < 2**64:
            raise UserError(f"seed={self.seed} must be a whole number of 64 bits.")
        if self.walk and self.walked < 2:
            raise UserError(f"A walk needs two latents: count={self.count} and stops={self.stops} must be 2 or more.")
        if self.walk and self.walked * self.steps > MOST_FRAMES:
            raise UserError(
                f"A walk of {self.walked} latents with steps={self.steps} has {self.walked * self.steps} frames, more "
                f"than {MOST_FRAMES}: take fewer stops or steps."
            )

    @property
    def walked(self) -> int:
        """How many latents the walk passes."""
        return min(self.count, self.stops)

    @property
    def animation(self) -> Walk | None:
        """How the walk is written, if at all."""
        return None if not self.walk else "gif" if self.walk == "gif" else "webp"


def write_samples(generator: Synthesiser, asked: Sampling, folder: Path, *, overwrite: bool = False) -> list[str]:
    """Make the samples, and write them into a folder; a line for each kind of file.

    `grid.png` holds up to 400 samples, `images/00000.png` and so on one each, `walk.webp` (or `.gif`) the walk. The
    folder is a new or an empty one unless `overwrite`, which replaces files of the same names.

    Raises:
        UserError: the folder holds something already, or cannot be written.
    """
    z = latents(asked.count, generator.latent, asked.seed, asked.truncation)
    names = [f"{number:05}.png" for number in range(asked.count)]
    _claim(folder, set(names), overwrite)
    frames = asked.walked * asked.steps if asked.animation else 0
    with Bar(asked.count + frames, "samples") as bar:
        shown = _write_images(generator, torch.split(z, asked.batch), [folder / IMAGES / name for name in names], bar)
        write_image(folder / GRID, Picture(grid(shown, math.ceil(len(shown) ** 0.5))))
        side = generator.size
        lines = [f"{folder / IMAGES}: {asked.count} of {side}x{side}", f"{folder / GRID}: {len(shown)} of them"]
        if asked.animation:
            bar.update(asked.count, "walk")
            path = folder / f"{WALK}.{asked.animation}"
            steps = torch.stack([*walk(z[: asked.walked], asked.steps)])
            _write_animation(path, _frames(generator, torch.split(steps, asked.batch), bar), asked.animation)
            lines.append(f"{path}: {asked.walked} latents, {frames} frames")
    return lines


def _claim(folder: Path, names: set[str], overwrite: bool) -> None:
    """Make the folder; raise UserError if it has files that would be lost, or mixed with the new samples."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold_to_new(folder, overwrite)
        (folder / IMAGES).mkdir(exist_ok=True)
        others = sorted({path.name for path in (folder / IMAGES).iterdir()} - names)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}.") from error
    if others:
        raise UserError(f"{folder / IMAGES} already has {others[0]}, which is not a new sample: choose another output.")


def _write_images(generator: Synthesiser, batches: Iterable[Tensor], paths: list[Path], bar: Bar) -> Tensor:
    """Write the samples of some batches of latents; those that the grid shows, (n, C, S, S)."""
    shown: list[Tensor] = []
    left = iter(paths)
    for some in batches:
        images = samples(generator, some, len(some))
        shown.append(images[: max(0, ON_THE_GRID - sum(map(len, shown)))])
        for image in images:
            write_image(next(left), Picture(to_uint8(image)))
            bar.advance()
    return torch.cat(shown)


def _frames(generator: Synthesiser, batches: Iterable[Tensor], bar: Bar) -> Iterator[NDArray[np.uint8]]:
    """Samples of latents as frames (H, W, 3), small ones enlarged by whole numbers."""
    times = max(1, round(FRAME / generator.size))
    for some in batches:
        for image in samples(generator, some, len(some)):
            yield grid(image[None], 1).repeat(times, 0).repeat(times, 1)
            bar.advance()


def _write_animation(path: Path, frames: Iterator[NDArray[np.uint8]], kind: Walk) -> None:
    """Write frames as one file that plays for ever, whole or not at all."""
    first, *rest = map(Image.fromarray, frames)
    options = {"lossless": True, "exif": marks.exif()} if kind == "webp" else {"comment": marks.SOFTWARE}
    content = io.BytesIO()
    first.save(content, kind, save_all=True, append_images=rest, duration=FRAME_MS, loop=0, **options)
    try:
        write_whole(path, content.getvalue())
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}.") from error
