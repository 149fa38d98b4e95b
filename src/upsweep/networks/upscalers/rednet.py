"""RED-Net: Mao, Shen and Yang, Image Restoration Using Very Deep Encoder-Decoder Networks with Skips, NIPS 2016."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, activation, chain
from upsweep.common.errors import UserError
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class REDNet(Upscaler):
    """As many 3x3 convolutions as 3x3 deconvolutions of stride 1 on the enlarged image, with symmetric skips.

    From every second convolution a skip leads to the deconvolution that mirrors it: the sum goes through the
    activation. The input is added to the output. RED10 has only that last skip, as in the paper. With one channel
    and 64 features it has 37,056 * depth - 73,151 parameters, depth 10, 20 or 30.

    Args:
        recipe: the choices (the paper's: ReLU, no norm, no dropout); `upsampler` enlarges the input.
        depth: layers, half of them deconvolutions: 10, 20 or 30 in the paper.
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        width: int = 64,
        depth: int = 30,
        skip: Skip = "bicubic",
    ) -> None:
        super().__init__(scale, channels, skip)
        if depth < 4 or depth % 2:
            raise UserError(f"generator.depth={depth} must be an even number of at least 4 (the paper's: 10, 20, 30).")
        half = depth // 2
        self.upsampler = recipe.upsampler.layer(channels, channels, scale)
        self.convs = chain(recipe, [channels, *[width] * half])
        # Deconvolution i mirrors convolution half - i. Where a skip comes in, the activation follows the sum.
        joins = [i for i in range(1, half) if (half - i) % 2 == 0] if depth >= 20 else []
        recipes = [recipe.linear() if i in joins else recipe for i in range(1, half)]
        self.deconvs = nn.ModuleList(
            Block(nn.ConvTranspose2d(width, width, 3, padding=1), width, own, before_last=i == half - 1)
            for i, own in enumerate(recipes, start=1)
        )
        self.joins = nn.ModuleDict({str(i): activation.make(recipe.activation, width) for i in joins})
        self.last = nn.ConvTranspose2d(width, channels, 3, padding=1)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        y: Tensor = self.upsampler(x)
        passed = []
        for block in self.convs:
            y = block(y)
            passed.append(y)
        for i, block in enumerate(self.deconvs, start=1):
            y = block(y)
            if str(i) in self.joins:
                y = self.joins[str(i)](y + passed[-1 - i])
        sr: Tensor = self.last(y)
        return sr
