"""What every discriminator is: a network that tells real images from made ones."""

from typing import ClassVar

from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.networks.network import Network
from upsweep.networks.sizes import first_and_doublings


class Discriminator(Network):
    """Judges images: `forward` maps (N, C, S, S) in [0, 1] to logits (N,), large where an image looks real.

    Args:
        size: S, the side of the images: 4, 5, 6 or 7 times a power of 2 (28, 32, 48, 64, 128).
        channels: C, 1 (grey) or 3 (RGB).

    The architectures also take a `recipe` of their own (its upsampler says nothing here) and a `width`. Their defaults
    are the paper's. All raise UserError for a size or a number of channels that they cannot take.
    """

    group: ClassVar[str] = "adversary.discriminator"
    output_name: ClassVar[str] = "logit"
    free: ClassVar[dict[int, str]] = {}

    def __init__(self, size: int, channels: int) -> None:
        super().__init__(channels)
        first_and_doublings(size)
        self.size = size

    def body(self, x: Tensor) -> Tensor:
        """The network itself, (N, C, S, S) in [-1, 1] -> (N, 1, 1, 1): its parts in the order of `__init__`."""
        for part in self.children():
            x = part(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, S, S) in [0, 1] -> logits (N,). Raises UserError: another C or S."""
        if x.shape[1:] != (self.channels, self.size, self.size):
            raise UserError(
                f"The discriminator takes images of {_said(self.channels, self.size, self.size)}, but got some "
                f"of {_said(*x.shape[1:])}: data.size and data.channels must be those of the generator's images."
            )
        return self.body(2 * x - 1).flatten()

    def example(self, height: int = 0, width: int = 0) -> Tensor:
        """An image (1, C, S, S) in [0, 1], always the same, whatever the size."""
        del height, width
        return super().example(self.size, self.size)


def _said(channels: int, height: int, width: int) -> str:
    return f"{height}x{width} in {channels} channel{'s'[: channels != 1]}"
