"""Adversarial losses: what the discriminator and the generator each minimise, of the logits of real and made images.

All take logits (N,) and give a scalar, the mean over the batch.
"""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn


class AdversarialLoss(nn.Module, ABC):
    """One game. `compares`: whether the generator's loss looks at the logits of real images, too."""

    compares = False

    @abstractmethod
    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        """What the discriminator minimises."""

    @abstractmethod
    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        """What the generator minimises; `real` is given where the loss `compares`."""


class NonSaturating(AdversarialLoss):
    """Goodfellow et al. 2014, section 3: -log D(real) - log(1 - D(made)) against -log D(made), D = sigmoid(logit)."""

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(made).mean()

    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        return F.softplus(-made).mean()


class LeastSquares(AdversarialLoss):
    """Mao et al. 2017, eq. 9: real images are to get 1 and made ones 0; half the squares."""

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return ((real - 1).square().mean() + made.square().mean()) / 2

    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        return (made - 1).square().mean() / 2


class Hinge(AdversarialLoss):
    """Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17: logits beyond -1 and 1 do not count for D."""

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()

    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        return -made.mean()


class Wasserstein(AdversarialLoss):
    """Arjovsky et al. 2017: the difference of the means. It needs a discriminator whose slope is bounded."""

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return made.mean() - real.mean()

    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        return -made.mean()


class Relativistic(AdversarialLoss):
    """Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2: a made image against the real one in its place."""

    compares = True

    def discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(made - real).mean()

    def generator(self, real: Tensor | None, made: Tensor) -> Tensor:
        assert real is not None  # it compares
        return F.softplus(real - made).mean()
