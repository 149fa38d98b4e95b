"""The features of real images, against which samples are judged: extracted once, kept by content."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import length_hint
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from upsweep.common.devices import device_holding
from upsweep.common.disks import full_disk
from upsweep.common.errors import UserError
from upsweep.common.files import write_whole
from upsweep.common.locks import locked
from upsweep.common.progress import Bar
from upsweep.metrics.extractors import Extractor
from upsweep.metrics.pairs import double, evenly, kernels_within, nearest, radii

NEIGHBOURS = 3  # Kynkäänniemi et al. 2019
NEAR = 0.01  # the share of real images that are nearer to a training image than what counts as memorised
PROGRESS_AFTER = 2.0  # seconds
FEATURES = "features"

log = logging.getLogger("upsweep")


@dataclass(frozen=True, eq=False)
class Reference:
    """Features (N, F) of real images, and what is asked of them again and again.

    Attributes:
        training: of the images that the generator was trained on.
        validation: of images that it never saw; the distances are those to them.
    """

    training: Tensor
    validation: Tensor

    def __post_init__(self) -> None:
        """Raises UserError: there are too few images."""
        if len(self.training) < 1 or len(self.validation) <= NEIGHBOURS:
            raise UserError(
                f"Samples cannot be judged by {len(self.validation)} real images of validation and "
                f"{len(self.training)} of training: {NEIGHBOURS + 1} and 1 are needed at least, thousands are good."
            )

    @property
    def num_features(self) -> int:
        """F."""
        return self.validation.shape[1]

    @cached_property
    def some(self) -> Tensor:
        """The validation features of which all pairs are taken: at most 5,000, drawn evenly."""
        return evenly(self.validation)

    @cached_property
    def radii(self) -> Tensor:
        """The squared distance of each of `some` to its third nearest neighbour among them."""
        return radii(self.some, NEIGHBOURS)

    @cached_property
    def kernels(self) -> Tensor:
        """The cubic kernel of each of `some`, summed over all others of them."""
        return kernels_within(double(self.some))

    @cached_property
    def threshold(self) -> Tensor:
        """The squared distance to the nearest training image below which 1 % of the validation images are."""
        return nearest(self.some, self.training).quantile(NEAR)


def features_of(
    extractor: Extractor, batches: Iterable[Tensor], cache_dir: Path | None = None, doing: str = "judging real images"
) -> Tensor:
    """The features (N, F) of real images, on the CPU; with a cache folder, what an earlier call extracted.

    Args:
        extractor: it.
        batches: images (n, C, S, S) in [0, 1]; gone through twice (a list, a DataLoader that does not shuffle).
        cache_dir: the folder of all caches, made where missing; the file's name is a digest of images and extractor.
        doing: what the bar says.

    Raises:
        UserError: the cache cannot be written, or there are no images.
    """
    if cache_dir is None:
        return _extracted(extractor, batches, doing)
    file = cache_dir / FEATURES / f"{_key(extractor, batches)}.safetensors"
    if (found := _read(file)) is not None:
        return found
    try:
        with locked(file.with_suffix(".lock")):
            if (found := _read(file)) is None:
                found = _extracted(extractor, batches, doing)
                write_whole(file, safetensors.torch.save({FEATURES: found}))
    except OSError as error:
        what = full_disk(error, cache_dir) or f"The cache in {cache_dir} cannot be written ({error})"
        how = "choose another folder with data.cache_dir=PATH, or do without a cache (data.cache=none)"
        raise UserError(f"{what}: {how}.") from error
    return found


def _extracted(extractor: Extractor, batches: Iterable[Tensor], doing: str) -> Tensor:
    device = device_holding(extractor)
    parts = []
    with Bar(length_hint(batches) or None, doing, after=PROGRESS_AFTER, lines=False) as bar:
        for images in batches:
            parts.append(extractor(images.to(device)).cpu())
            bar.advance()
    if not parts:
        raise UserError(f"There are no real images to judge by ({doing}).")
    return torch.cat(parts)


def _key(extractor: Extractor, batches: Iterable[Tensor]) -> str:
    """A name for exactly these batches of images under this extractor."""
    found = hashlib.blake2b(extractor.digest.encode(), digest_size=12)
    for images in batches:
        found.update(repr(tuple(images.shape)).encode())
        found.update(images.float().cpu().contiguous().numpy().data)
    return found.hexdigest()


def _read(file: Path) -> Tensor | None:
    """The features in a file; None where there is none, or a broken one, which is made again."""
    try:
        return safetensors.torch.load_file(file)[FEATURES]
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError):
        log.warning("The features in %s were damaged: they are extracted once more.", file)
        return None
