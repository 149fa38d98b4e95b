"""What every synthesiser is: a network that makes images from latents."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from upsweep.common.checks import at_least
from upsweep.networks.network import Network
from upsweep.networks.sizes import first_and_doublings


class Synthesiser(Network):
    """Makes images from latents: `forward` maps (N, L) to (N, C, S, S), values in [0, 1].

    Args:
        size: S, the side of the images: 4, 5, 6 or 7 times a power of 2 (28, 32, 48, 64, 128).
        channels: C, 1 (grey) or 3 (RGB).
        latent: L, the numbers in a latent, which are drawn from N(0, 1).

    A synthesiser sets `decoder`, which maps latents (N, L, 1, 1) to (N, C, S, S), values in R. Its last upsampling has
    the stride `stride`, by whose phases a checkerboard shows.

    The architectures also take a `recipe` (init, activation, norm, dropout, upsampler) and a `width`. Their defaults
    are the paper's. All raise UserError for a size or a number of channels that they cannot make.
    """

    input_name: ClassVar[str] = "latent"
    output_name: ClassVar[str] = "image"
    free: ClassVar[dict[int, str]] = {0: "batch"}
    stride: ClassVar[int] = 2
    decoder: nn.Module

    def __init__(self, size: int, channels: int, latent: int) -> None:
        super().__init__(channels)
        first_and_doublings(size)
        at_least("generator", 1, latent=latent)
        self.size, self.latent = size, latent

    def forward(self, x: Tensor) -> Tensor:
        """Latents (N, L) -> images (N, C, S, S) in [0, 1]."""
        y: Tensor = self.decoder(x[:, :, None, None])
        return torch.sigmoid(2 * y)  # (tanh(y) + 1) / 2, and exact where that is near 0

    def example(self, height: int = 0, width: int = 0) -> Tensor:
        """A latent (1, L), always the same, whatever the size."""
        del height, width
        return torch.randn(1, self.latent, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def samples(generator: nn.Module, latents: Tensor, batch: int = 64) -> Tensor:
    """Images (N, C, S, S) from latents (N, L), values in [0, 1], on the CPU; the network's mode stays."""
    training, parameter = generator.training, next(generator.parameters())
    generator.eval()
    made = [generator(some.to(parameter)).float().clamp(0, 1).cpu() for some in torch.split(latents, batch)]
    generator.train(training)
    return torch.cat(made)
