"""The geometric self-ensemble of EDSR+: the mean over the eight flips and rotations of the input."""

from itertools import product

from torch import Tensor

from upsweep.networks.wrappers.wrapper import Wrapper


class SelfEnsemble(Wrapper):
    """The mean of what a generator makes of the eight flips and rotations of an image, each turned back.

    Flipping or turning the input so does exactly that to the output (Lim et al. 2017, section 3.4). Takes eight
    times as long.
    """

    def body(self, x: Tensor) -> Tensor:
        total = x.new_zeros(())
        for flip, turns in product((False, True), range(4)):
            y = self.generator((x.flip(-1) if flip else x).rot90(turns, (-2, -1))).rot90(-turns, (-2, -1))
            total = total + (y.flip(-1) if flip else y)
        return total / 8
