"""The geometric self-ensemble of EDSR+: the mean over the eight flips and rotations of the input."""

from torch import Tensor

from upsweep.imaging.turns import mean_over
from upsweep.networks.wrappers.wrapper import Wrapper


class SelfEnsemble(Wrapper):
    """The mean of what a generator makes of the eight flips and rotations of an image, each turned back.

    Flipping or turning the input so does exactly that to the output (Lim et al. 2017, section 3.4). Takes eight times
    as long; twice where the generator's layers share their weights among rotations, all of which it sees alike.
    """

    def body(self, x: Tensor) -> Tensor:
        return mean_over(self.distinct, self.generator, x)
