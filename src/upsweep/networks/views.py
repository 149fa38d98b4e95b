"""The flips and rotations of an image: a network may see it in several of them, and give the mean."""

from collections.abc import Callable, Sequence

from torch import Tensor

# Each a flip from left to right (1), then one upside down (2), then a transposition (4). Each set is a group: what is
# the mean over it does not change with the flips and rotations that are in it.
GROUPS: dict[int, Sequence[int]] = {
    1: (0,),
    2: (0, 3),  # and turned by 180 degrees
    4: (0, 1, 2, 3),  # and flipped
    8: range(8),  # all that keep the grid of pixels
}


def mean_over(views: int, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The mean of what a function makes of so many views of images (N, C, H, W), each turned back.

    With 8 views it is the geometric self-ensemble of Lim et al. 2017, section 3.4. `views` is a key of GROUPS.
    """
    if views == 1:
        return function(x)
    return sum((back(function(turned(x, turn)), turn) for turn in GROUPS[views]), x.new_zeros(())) / views


def turned(x: Tensor, turn: int) -> Tensor:
    """One of the 8 flips and rotations of images (..., H, W)."""
    flipped = [axis for axis, bit in ((-1, 1), (-2, 2)) if turn & bit]
    x = x.flip(flipped) if flipped else x
    return x.transpose(-1, -2) if turn & 4 else x


def back(x: Tensor, turn: int) -> Tensor:
    """The opposite of `turned`."""
    x = x.transpose(-1, -2) if turn & 4 else x
    flipped = [axis for axis, bit in ((-1, 1), (-2, 2)) if turn & bit]
    return x.flip(flipped) if flipped else x
