"""SR images that another program made: read, and held to the size of the HR."""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.imaging.files import read_image, to_tensor
from upsweep.tasks.super_resolution.data import EvalImage

MULTIPLES = (3, 4, 8, 6, 12, 24, 16, 32)  # to which programs crop: of a scale, of several, of poolings

Size = tuple[int, int]  # width, height


class GivenImages(NamedTuple):
    """SR images that another program made: files by the names of their images, grey or RGB."""

    scale: int
    files: Mapping[str, Path]

    def of(self, image: EvalImage) -> Tensor:
        """The SR of an image with N = 1: (1, 1 or 3, H, W) in [0, 1]; one channel, where the HR is grey.

        A grey SR of a colour image is taken for its luma of BT.601 in studio range, as programs for the Y plane
        write it.

        Raises:
            UserError: the file cannot be read, or has another size than the HR.
        """
        file = self.files[image.name]
        sr = to_tensor(read_image(file).pixels)[None].to(image.hr)
        found, wanted = ((x.shape[-1], x.shape[-2]) for x in (sr, image.hr))
        if found != wanted:
            raise UserError(
                f"{file} has {found[0]}x{found[1]} pixels, and the HR of {image.name} has {wanted[0]}x{wanted[1]} at "
                f"x{self.scale}: {_misfit(found, wanted, self.scale)}."
            )
        return sr.mean(dim=1, keepdim=True) if image.rgb_hr is None else sr


def _misfit(found: Size, wanted: Size, scale: int) -> str:
    """Why an SR image has another size than its HR, as far as can be told, and what to do."""
    width, height = (Fraction(a * scale, b) for a, b in zip(found, wanted, strict=True))
    if width == height and width.denominator == 1:
        return "it is as small as the LR" if width == 1 else f"that is x{width}: is scale={width} meant?"
    for multiple in MULTIPLES:
        if found == (wanted[0] // multiple * multiple, wanted[1] // multiple * multiple):
            return (
                f"it seems to be cropped to a multiple of {multiple}: say scale={multiple} if that is its scale, or "
                "give HR images that are cropped like it as benchmark=FOLDER"
            )
    return f"crop the HR image to a multiple of {scale} (its top left is kept), shrink that, and enlarge the result"
