"""The features of a DataModule's real images, found when they are first asked for: by then the data are set up."""

import logging
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from upsweep.metrics.extractors import Extractor
from upsweep.metrics.reference import Reference, features_of
from upsweep.tasks.generation.data import ImageData

BATCH = 250  # images
log = logging.getLogger("upsweep")


class DataReference(Reference):
    """What samples are held against, of the images of `data`; every process finds the same."""

    def __init__(self, extractor: Extractor, data: ImageData) -> None:
        vars(self).update(extractor=extractor, data=data)

    extractor: Extractor
    data: ImageData

    @property
    def num_features(self) -> int:
        return self.extractor.num_features

    @cached_property
    def _found(self) -> Reference:
        cache = Path(self.data.cache_dir) if self.data.cache == "disk" else None
        training, validation = (
            features_of(self.extractor, [as_batch(some) for some in torch.split(images, BATCH)], cache)
            for images in (self.data.training_images(), self.data.validation_images())
        )
        if len(validation) < self.num_features and self.data.rank == 0:
            log.warning(
                "Samples are judged by %d real images: figures of so few say little. Hold out more (data.val_share).",
                len(validation),
            )
        return Reference(training, validation)

    @property
    def training(self) -> Tensor:
        return self._found.training

    @property
    def validation(self) -> Tensor:
        return self._found.validation


def as_batch(levels: Tensor) -> Tensor:
    """Images of whole levels, uint8 (N, C, S, S), as float32 in [0, 1]."""
    return levels.to(torch.float32) / 255
