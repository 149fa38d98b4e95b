"""Penalties on the slope of a discriminator, D's logit as a function of its image.

Images are (N, C, H, W) in [0, 1]. A slope is that of the logit in the image as the network sees it, which is twice as
wide, [-1, 1]: so the papers' weights hold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from upsweep.common.checks import at_least

Look = Callable[[Tensor], Tensor]  # images -> logits (N,)
WIDTH = 2.0  # of the range that the network sees, over that of the image


def slopes(look: Look, images: Tensor) -> Tensor:
    """The Euclidean norm of the logit's gradient at each image, squared: (N,), differentiable.

    Autocast has no part in it: in half precision small slopes would be lost.
    """
    images = images.detach().requires_grad_()
    with torch.autocast(images.device.type, enabled=False):
        (gradient,) = torch.autograd.grad(look(images).sum(), images, create_graph=True)
    return (gradient / WIDTH).square().flatten(1).sum(1)


@dataclass(frozen=True, kw_only=True)
class Penalties:
    """What is added to the discriminator's loss; a weight of 0 leaves a penalty out.

    Attributes:
        r1: gamma of gamma / 2 E |slope|^2 at real images (Mescheder et al. 2018, eq. 9).
        r2: the same at made images (eq. 10); R3GAN takes both (Huang et al. 2024).
        gradient: lambda of lambda E (|slope| - 1)^2 between real and made images (Gulrajani et al. 2017, eq. 3).
    """

    r1: float = 0.0
    r2: float = 0.0
    gradient: float = 0.0

    def __post_init__(self) -> None:
        """Raises UserError: a weight is below 0."""
        at_least("adversary", 0, r1=self.r1, r2=self.r2, gradient_penalty=self.gradient)

    def __call__(self, look: Look, real: Tensor, made: Tensor) -> Tensor:
        """The sum of the penalties, a scalar; what is random, the place between two images, is torch's."""
        total, made = torch.zeros((), device=real.device), made.to(real.dtype)  # autocast makes in half precision
        if self.r1:
            total = total + self.r1 / 2 * slopes(look, real).mean()
        if self.r2:
            total = total + self.r2 / 2 * slopes(look, made).mean()
        if self.gradient:
            share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
            between = slopes(look, torch.lerp(made, real, share))
            # the root has no slope at 0
            total = total + self.gradient * ((between + 1e-12).sqrt() - 1).square().mean()
        return total
