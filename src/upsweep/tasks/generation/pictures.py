"""Pictures by which a person judges a synthesiser: samples beside real images, a walk between latents, neighbours."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upsweep.imaging.files import to_uint8
from upsweep.imaging.tiles import Panel, side_by_side
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import samples

BETWEEN = 2  # white pixels between two images of a grid
STEPS = 8  # of a walk from one latent to the next
NEAREST = 3  # real images beside a sample
CELL = 128  # pixels in height of a picture in a table
SHEET = 512  # pixels in height of the pictures at the end of a training, unless there is more to be seen


def grid(images: Tensor, columns: int) -> NDArray[np.uint8]:
    """Images (N, C, S, S), values in [0, 1], in rows of `columns`: (H, W, 3) uint8, white between and after them."""
    images = images.detach().float().cpu().clamp(0, 1)
    rows = -(-len(images) // columns)
    side = images.shape[-1] + BETWEEN
    sheet = np.full((rows * side - BETWEEN, columns * side - BETWEEN, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (side * place for place in divmod(i, columns))
        sheet[top : top + side - BETWEEN, left : left + side - BETWEEN] = to_uint8(image)
    return sheet


def square(images: Tensor, size: int) -> NDArray[np.uint8]:
    """As many of the images as fill a square grid of about `size` pixels, at most 8 x 8, small ones enlarged."""
    side = images.shape[-1] + BETWEEN
    columns = max(1, min(8, size // side, int(len(images) ** 0.5)))
    return enlarged(grid(images[: columns**2], columns), size)


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """Between two latents (..., L) on the great circle, as their lengths ask (White 2016): `start` at 0, `end` at 1.

    A straight line would pass through latents shorter than those that the network was trained on.
    """
    a, b = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12) for x in (start, end))
    angle = (a * b).sum(-1, keepdim=True).clamp(-1, 1).arccos()
    sine = angle.sin()
    straight = torch.lerp(start, end, share)
    turned = ((1 - share) * angle).sin() / sine * start + (share * angle).sin() / sine * end
    return torch.where(sine.abs() < 1e-6, straight, turned)


def walk(latents: Tensor, steps: int) -> Iterator[Tensor]:
    """From each latent (N, L) to the next and from the last back to the first, `steps` each: N steps of (L,)."""
    for start, end in zip(latents, latents.roll(-1, 0), strict=True):
        for step in range(steps):
            yield slerp(start, end, step / steps)


def latent_walk(generator: Network, latents: Tensor) -> Panel:
    """A row a latent (N, L): what lies on the way to the next one, and from the last to the first."""
    made = samples(generator, torch.stack([*walk(latents, STEPS)]))
    caption = f"a latent walk: each row goes from one latent to the next in {STEPS} steps"
    return Panel("latent_walk", enlarged(grid(made, STEPS), SHEET), caption)


def neighbours(made: Tensor, features: Tensor, real: Tensor, real_features: Tensor, extractor: str) -> Panel:
    """A row a sample (N, C, S, S): the sample | the three real images with the nearest features, the nearest first.

    A generator that copies training images shows the same thing twice in a row.

    Args:
        made, features: samples with their features (N, F).
        real, real_features: the images (M, C, S, S), in [0, 1] or whole levels, with theirs (M, F).
        extractor: its name, for the caption.
    """
    distances, near = nearest_images(features, real, real_features)
    pixels = side_by_side([grid(made, 1), grid(near.flatten(0, 1), near.shape[1])])
    least = ", ".join(f"{distance:.3g}" for distance in distances[:, 0].tolist())
    caption = f"samples | their nearest training images by features ({extractor}); distances to the nearest: {least}"
    return Panel("nearest_training_images", enlarged(pixels, SHEET), caption)


def one(image: Tensor, title: str) -> Panel:
    """An image (C, S, S), values in [0, 1], as a picture of a table."""
    return Panel(title, enlarged(grid(image[None], 1), CELL), title)


def nearest_images(features: Tensor, real: Tensor, real_features: Tensor) -> tuple[Tensor, Tensor]:
    """The three real images with the nearest features to each of `features` (N, F), the nearest first.

    Gives their distances (N, 3), and the images (N, 3, C, S, S) in [0, 1]; fewer where there are fewer images.
    """
    distances, places = torch.cdist(features, real_features).topk(min(NEAREST, len(real)), largest=False)
    near = real[places]
    return distances, near / 255 if near.dtype == torch.uint8 else near


def enlarged(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pixels as squares, as large as an image of at most `size` pixels in height allows."""
    times = max(1, size // len(pixels))
    return pixels.repeat(times, 0).repeat(times, 1)
