"""Samples of a synthesiser, and what lies between two of them."""

from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.data.cache import digest_of
from upsweep.imaging.files import Picture
from upsweep.imaging.writing import write_image
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.sampling.files import GRID, WALK, Sampling, write_samples
from upsweep.sampling.latents import latents
from upsweep.tasks.generation.pictures import enlarged, grid, slerp

SHOWN = 512  # pixels: a small sample is enlarged to about that


def draw(
    generator: Synthesiser, count: int | None, seed: int | None, truncation: float | None, folder: Path
) -> tuple[Path, Path | None]:
    """Write samples into a new folder as `sample.py` does: their grid, and where there are two or more a walk.

    Raises:
        UserError: a number is missing or of no use.
    """
    asked = Sampling(
        count=_whole("count", count), seed=_whole("seed", seed), truncation=truncation, walk=_whole("count", count) > 1
    )
    write_samples(generator, asked, folder, overwrite=True)
    return folder / GRID, folder / f"{WALK}.{asked.animation}" if asked.animation else None


def between(
    generator: Synthesiser, seeds: tuple[int | None, int | None], share: float, truncation: float | None, folder: Path
) -> Path:
    """Write one sample (PNG) from between the first latents of two seeds, `share` of the way (0 to 1) along.

    Another picture has another path, whatever made it: a browser asks for none that it has.

    Raises:
        UserError: a number is missing or of no use.
    """
    asked = [Sampling(count=1, seed=_whole("seed", seed), truncation=truncation) for seed in seeds]
    start, end = (latents(1, generator.latent, one.seed, one.truncation) for one in asked)
    made = Picture(enlarged(grid(samples(generator, slerp(start, end, share)), 1), SHOWN))
    path = folder / digest_of(made) / f"{asked[0].seed}_to_{asked[1].seed}_at_{share:.2f}.png"
    path.parent.mkdir(exist_ok=True)
    write_image(path, made)
    return path


def _whole(name: str, number: float | None) -> int:
    """What a field of the page holds, which may be empty."""
    if number is None or number != int(number):
        raise UserError(f"Say a whole number for {name}.")
    return int(number)
