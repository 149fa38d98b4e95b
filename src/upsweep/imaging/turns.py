"""The flips and rotations of an image: a network may see it in several of them, and give the mean."""

from collections.abc import Callable, Sequence

from torch import Tensor

# Each a flip from left to right (1), then one upside down (2), then a transposition (4): turned by 0, 90, 270 and 180
# degrees, then the same flipped. The first 4 and all 8 are groups: their mean turns with the image.
TURNS = (0, 5, 6, 3, 1, 4, 7, 2)


def mean_over(turns: Sequence[int], function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of what a function makes of some of the TURNS of images (N, C, H, W), each turned back.

    With all 8 it is the geometric self-ensemble of Lim et al. 2017, section 3.4.
    """
    if len(turns) == 1:
        return back(function(turned(x, turns[0])), turns[0])
    return sum((back(function(turned(x, turn)), turn) for turn in turns), x.new_zeros(())) / len(turns)


def turned(x: Tensor, turn: int) -> Tensor:
    """One of the 8 flips and rotations of images (..., H, W)."""
    x = _flipped(x, turn)
    return x.transpose(-1, -2) if turn & 4 else x


def back(x: Tensor, turn: int) -> Tensor:
    """The opposite of `turned`."""
    return _flipped(x.transpose(-1, -2) if turn & 4 else x, turn)


def _flipped(x: Tensor, turn: int) -> Tensor:
    axes = [axis for axis, bit in ((-1, 1), (-2, 2)) if turn & bit]
    return x.flip(axes) if axes else x
