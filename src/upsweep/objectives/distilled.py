"""Distillation: a generator learns from the images of a trained one besides."""

import os

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.imaging.turns import mean_over
from upsweep.networks import checkpoints


class Distilled(nn.Module):
    """(1 - weight) of(made, wanted) + weight of(made, taught), where a trained network, the teacher, makes `taught`.

    Knowledge distillation (Hinton et al. 2015), as for super-resolution (He et al. 2020) but with the images alone. The
    teacher sees the same LR images as the generator, does not learn, and is no part of a checkpoint.

    Args:
        of: the objective, (SR, HR) -> scalar.
        teacher: a checkpoint, or the name of weights that the package carries (`deconvnet_x2`); of an upscaler.
        weight: of the teacher's images, 0 to 1; at 1 HR images do not count.
        self_ensemble: whether the teacher gives its mean over the eight flips and rotations, in eight times the time.

    Raises UserError: there is no such checkpoint, it holds no upscaler, or the weight is none.
    """

    def __init__(
        self, of: nn.Module, teacher: str | os.PathLike[str], weight: float = 0.5, self_ensemble: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= weight <= 1:
            raise UserError(f"objective.weight={weight} must be from 0 to 1.")
        self.of, self.weight, self.views = of, weight, 8 if self_ensemble else 1
        self.teacher = checkpoints.load_upscaler(teacher).requires_grad_(requires_grad=False)
        self._said = f"objective.teacher={teacher}"

    def train(self, mode: bool = True) -> "Distilled":
        """Into training, but for the teacher: its normalisation keeps its statistics."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, made: Tensor, wanted: Tensor, given: Tensor) -> Tensor:
        """SR and HR (N, C, s h, s w), and LR (N, C, h, w) -> a scalar. Raises UserError: the teacher's do not fit."""
        n, channels, *size = given.shape
        made_by_it = (n, channels, *(self.teacher.scale * side for side in size))
        if channels != self.teacher.channels or made.shape != made_by_it:
            raise UserError(
                f"{self._said} enlarges {self.teacher.channels} channels x{self.teacher.scale}; the generator makes "
                f"{tuple(made.shape[1:])} of {tuple(given.shape[1:])}: choose a teacher of its scale and channels."
            )
        with torch.no_grad():
            taught = mean_over(self.views, self.teacher, given)
        loss: Tensor = (1 - self.weight) * self.of(made, wanted) + self.weight * self.of(made, taught)
        return loss
