"""Batches of a LightningDataModule of the user's own: LR and HR images, as super-resolution takes them."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.tasks.super_resolution.data import EvalImage
from upsweep.tasks.super_resolution.patches import Patch

WANTED = (
    "task=super_resolution takes batches (lr, hr) of float tensors in [0, 1], as a tuple, a list, or a mapping with "
    "the keys lr and hr: (N, {channels}, h, w) and (N, {channels}, {scale} h, {scale} w) for this generator and scale"
)


def pair_in(batch: Any, scale: int, channels: int, *, known: bool = False) -> Patch:
    """LR and HR of a batch, whoever made it.

    `known`: do not look at the values, which takes time.

    Raises UserError: they are not what super-resolution takes; the sentence says what is.
    """
    if isinstance(batch, Patch):
        return batch
    found = _found(batch)
    wanted = WANTED.format(scale=scale, channels=channels)
    if len(found) != 2 or not all(isinstance(x, Tensor) and x.ndim == 4 for x in found):
        raise UserError(f"{wanted}; this one is {_said(batch)}.")
    lr, hr = found
    if hr.shape != (len(lr), channels, lr.shape[2] * scale, lr.shape[3] * scale) or lr.shape[1] != channels:
        raise UserError(f"{wanted}; this one has {tuple(lr.shape)} and {tuple(hr.shape)}.")
    if not known:
        for x in (lr, hr):
            low, high = float(x.min()), float(x.max())
            if not (x.is_floating_point() and low > -0.1 and high < 1.1):  # a resize may overshoot a little
                raise UserError(
                    f"{wanted}; this one has {str(x.dtype).removeprefix('torch.')} from {low:g} to {high:g}."
                )
    # Networks are of float32, unless trainer.precision makes another type torch's default.
    lr, hr = (x.to(torch.get_default_dtype()) if x.dtype is torch.float64 else x for x in (lr, hr))
    return Patch(lr, hr)


def images_in(pair: Patch, first: int) -> Iterator[EvalImage]:
    """Each image of a batch by itself, with N = 1, by the names image_0001 and so on, from number `first`."""
    for i, (lr, hr) in enumerate(zip(pair.lr[:, None], pair.hr[:, None], strict=True)):
        colours = (lr, hr) if hr.shape[1] == 3 else (None, None)
        yield EvalImage(f"image_{first + i:04d}", lr, hr, *colours)


def _found(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return [batch[key] for key in ("lr", "hr") if key in batch]
    if hasattr(batch, "lr") and hasattr(batch, "hr"):
        return [batch.lr, batch.hr]
    return list(batch) if isinstance(batch, tuple | list) else []


def _said(batch: Any) -> str:
    """A batch in words: `a tuple of Tensor (4, 1, 8, 8), str`."""
    each = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else [batch]
    kinds = (f"Tensor {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__ for x in each)
    return f"a {type(batch).__name__} of {', '.join(kinds)}"
