"""Distillation: a generator also learns from the images of a trained one."""

import os
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.imaging.resize import level_of
from upsweep.imaging.turns import mean_over
from upsweep.networks import checkpoints
from upsweep.objectives.asking import asked


class Distilled(nn.Module):
    """(1 - weight) of(made, wanted) + weight of(made, taught), where a trained network, the teacher, makes `taught`.

    Knowledge distillation (Hinton et al. 2015), as for super-resolution (He et al. 2020) but with the images alone. The
    teacher sees the same LR images as the generator, does not learn, and is no part of a checkpoint. A smaller level of
    a pyramid is held to what the teacher makes, shrunk, as it is to HR.

    Args:
        of: the objective, (SR, HR) -> scalar.
        teacher: a checkpoint, or the name of weights that the package carries (`deconvnet_x2`); of an upscaler.
        weight: of the teacher's images, 0 to 1; at 1 HR images do not count.
        self_ensemble: whether the teacher gives its mean over the eight flips and rotations (`SelfEnsemble`).
        allow: classes outside upsweep that the teacher may be of, see `checkpoints.load_generator`.
        scale: that of the training, for the check; None checks nothing.
        channels: likewise.

    Raises UserError: there is no such checkpoint, it holds no upscaler, or one of another scale or other channels; the
    weight is none.
    """

    def __init__(
        self,
        of: nn.Module,
        teacher: str | os.PathLike[str],
        weight: float = 0.5,
        self_ensemble: bool = False,
        allow: Collection[str] = (),
        scale: int | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise UserError(f"objective.weight={weight} must be from 0 to 1.")
        self.of, self.weight = of, weight
        self.teacher = checkpoints.load_upscaler(teacher, allow=allow).requires_grad_(requires_grad=False)
        its = (self.teacher.scale, self.teacher.channels)
        ours = (its[0] if scale is None else scale, its[1] if channels is None else channels)
        if its != ours:
            raise UserError(
                f"The teacher {teacher} is one for scale={its[0]} and channels={its[1]}, and the generator has "
                f"scale={ours[0]} and channels={ours[1]}: choose a teacher that fits."
            )
        self._turns = self.teacher.distinct if self_ensemble else self.teacher.distinct[:1]
        self._asked = asked(of)
        self.asks = tuple(dict.fromkeys(("given", *self._asked)))
        self.taps = tuple(getattr(of, "taps", ()))

    def train(self, mode: bool = True) -> "Distilled":
        """Into training, but for the teacher: its normalisation keeps its statistics."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, made: Tensor, wanted: Tensor, given: Tensor, **more: Any) -> Tensor:
        """SR and HR (N, C, s h, s w), LR (N, C, h, w), and what `of` asks for -> a scalar."""
        with torch.no_grad():
            taught = level_of(mean_over(self._turns, self.teacher, given), made.shape[-1])
        known = {"given": given, **more}
        besides = {name: known[name] for name in self._asked}
        loss: Tensor = (1 - self.weight) * self.of(made, wanted, **besides) + self.weight * self.of(
            made, taught, **besides
        )
        return loss
