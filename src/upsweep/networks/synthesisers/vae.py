"""The variational autoencoder: Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014."""

import torch
from torch import Tensor

from upsweep.blocks import Recipe
from upsweep.common.checks import at_least
from upsweep.networks.discriminators.dcgan import encoder
from upsweep.networks.synthesisers.dcgan import decoder
from upsweep.networks.synthesisers.synthesiser import Synthesiser


class VAE(Synthesiser):
    """DCGAN's generator as the decoder, and its mirror image as the encoder; `forward` decodes.

    Args:
        recipe: the choices, of both halves; the encoder has convolutions of stride 2 whatever the upsampler is.
        width: channels of the largest features.
        kl_weight: the factor on the divergence of the latents from N(0, I): 1 gives the bound on the likelihood, more
            than 1 latents that are less entangled (Higgins et al. 2017).
    """

    def __init__(
        self,
        recipe: Recipe,
        size: int = 32,
        channels: int = 3,
        width: int = 16,
        latent: int = 64,
        kl_weight: float = 1.0,
    ) -> None:
        super().__init__(size, channels, latent)
        at_least("generator", 1, width=width)
        at_least("generator", 0, kl_weight=kl_weight)
        self.kl_weight = kl_weight
        self.encoder = encoder(recipe, size, channels, width, 2 * latent)
        self.decoder = decoder(recipe, size, channels, width, latent)
        self.initialise(recipe, self.decoder[-1])

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) in [0, 1] -> mean and log variance of their latents, (N, L) each, float32.

        Half precision would round the divergence of what is near to N(0, I) to a number below 0.
        """
        mean, log_variance = self.encoder(2 * images - 1).flatten(1).float().chunk(2, dim=1)
        return mean, log_variance

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) in [0, 1] -> the same through a drawn latent each, and the weighted divergence.

        The divergence, a scalar, is that of an image's latent divided by the image's values: it adds to a mean over
        pixels (eq. 10 of the paper, divided by C S^2).
        """
        mean, log_variance = self.encode(images)
        latents = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        divergence = self.kl_weight * kl_to_standard_normal(mean, log_variance).mean() / images[0].numel()
        return self(latents.to(images.dtype)), divergence


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), (N, L) each -> (N,): appendix B of the paper."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
