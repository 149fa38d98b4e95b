"""Where it fails: the patches with the largest loss against HR, and those with the smallest gain over bicubic."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upsweep.common.checks import at_least
from upsweep.common.devices import device_holding
from upsweep.common.errors import UserError
from upsweep.explaining.canvas import LINE, Canvas, broken
from upsweep.explaining.case import Case
from upsweep.explaining.section import Section
from upsweep.imaging.colour import luma
from upsweep.imaging.resize import enlarge
from upsweep.metrics.figure import Figure
from upsweep.metrics.metric import MAX_PSNR
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage

FIGURES = (Figure(name="worse", title="worse than bicubic", unit="%", better="lower", digits=1),)
SEEN = 1.0  # squared grey levels: a patch with less error than this is as good as HR, and nothing can be gained in it
TILE, GAP, LABEL = 128, 6, 128  # pixels of the picture: a patch, what lies between two, the names of rows

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Patches:
    """What is cut out and shown.

    Attributes:
        side: of a patch, in HR pixels.
        count: patches of each kind, at most.
        of_one: patches from one image, at most, where there are images enough to fill the sheet.
    """

    side: int = 32
    count: int = 6
    of_one: int = 2

    def __post_init__(self) -> None:
        """Raises UserError: a number is of no use."""
        at_least("patches", 4, side=self.side)
        at_least("patches", 1, count=self.count, of_one=self.of_one)

    def limit(self, images: int) -> int:
        """Patches from one of so many images, at most."""
        return max(self.of_one, ceil(self.count / images))


@dataclass(frozen=True, eq=False)
class Judged:
    """An image that an upscaler is judged on, (C, H, W) each, in [0, 1]; `sr` need not be clipped.

    `corner` is the column and the row at which it begins in its file.
    """

    name: str
    hr: Tensor
    sr: Tensor
    bicubic: Tensor
    corner: tuple[int, int] = (0, 0)


@torch.no_grad()
def judged(network: Upscaler, images: Iterable[EvalImage]) -> Iterator[Judged]:
    """What the network makes of images (C, ., .), one after the other, so that a benchmark is never held whole."""
    device = device_holding(network)
    for image in images:
        lr = image.lr[None].to(device)
        yield Judged(image.name, image.hr, network(lr).float()[0].cpu(), enlarge(lr, network.scale)[0].cpu())


@dataclass(frozen=True, eq=False)
class JudgedPatch:
    """A place, its errors, and what is seen there.

    Attributes:
        image: its name.
        x, y: column and row of its top left corner in the HR pixels of the file.
        losses: the mean squared error of each case in squared grey levels.
        bicubic: that of bicubic.
        seen: bicubic, each case's SR, HR: (C, side, side) in [0, 1] each.
    """

    image: str
    x: int
    y: int
    losses: tuple[float, ...]
    bicubic: float
    seen: tuple[Tensor, ...]

    @property
    def loss(self) -> float:
        """The mean over the cases."""
        return float(np.mean(self.losses))

    @property
    def gain(self) -> float:
        """PSNR over that of bicubic in dB, the mean over the cases; below 0: worse than bicubic."""
        return float(np.mean(psnr(np.array(self.losses)) - psnr(self.bicubic)))


def psnr(loss: float | Floats) -> Floats:
    """The PSNR in dB of mean squared errors in squared grey levels; `MAX_PSNR` where there is no error to speak of."""
    values: Floats = 10 * np.log10(255**2 / np.maximum(loss, 255**2 / 10 ** (MAX_PSNR / 10)))
    return values


def patch_errors(made: Tensor, hr: Tensor, side: int, shave: int = 0) -> Floats:
    """The mean squared error of the luma in squared grey levels, patch by patch: (rows, columns) of patches.

    Pixels less than `shave` from the border count nothing, as papers have it, since padding fails there; the first
    patch begins inside of them, and what is left over at the right and the bottom is not looked at.

    Args:
        made, hr: (C, H, W) in [0, 1], C 1 or 3; made is clipped first.
    """
    error = (luma(made.clamp(0, 1)) - luma(hr)).double().mul(255).square()[0]
    error = error[shave : error.shape[0] - shave, shave : error.shape[1] - shave]
    rows, columns = (length // side for length in error.shape)
    grid = error[: rows * side, : columns * side].reshape(rows, side, columns, side)
    means: Floats = grid.mean((1, 3)).cpu().numpy()
    return means


def apart(scores: Floats, count: int) -> list[tuple[int, int]]:
    """The places (row, column) of the largest of `scores` (R, C), of which no two touch, not even at a corner.

    At most `count`, the largest first; none whose score is -inf.
    """
    left, found = scores.copy(), list[tuple[int, int]]()
    while len(found) < count and left.size and np.isfinite(left.max()):
        row, column = (int(place) for place in np.unravel_index(left.argmax(), left.shape))
        found.append((row, column))
        left[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = -np.inf
    return found


@dataclass(frozen=True, eq=False)
class Found:
    """What was found in one image, or in many.

    Attributes:
        lost: patches with the largest loss, the mean over the cases; the largest first.
        gained: patches with the smallest gain over bicubic, likewise; the smallest first.
        worst: for each case, the patch with its own largest loss.
        worse: for each case, in how many patches it is worse than bicubic.
        patches: how many were looked at.
    """

    lost: Sequence[JudgedPatch]
    gained: Sequence[JudgedPatch]
    worst: Sequence[JudgedPatch]
    worse: Sequence[int]
    patches: int

    def share(self, case: int) -> float:
        """In how many of 100 patches the case is worse than bicubic."""
        return 100 * self.worse[case] / self.patches


def search(images: Iterable[Sequence[Judged]], asked: Patches, shave: int = 0) -> Found:
    """Look through images, each as it is judged for every case; one image is held at a time.

    Raises:
        UserError: none is as large as a patch.
    """
    found = [one for image in images if (one := search_one(image, asked, shave)).patches]
    if not found:
        raise UserError(f"patches.side={asked.side} is larger than the images: choose a smaller one.")
    lost = sorted((patch for one in found for patch in one.lost), key=lambda patch: -patch.loss)
    gained = sorted((patch for one in found for patch in one.gained), key=lambda patch: patch.gain)
    limit = asked.limit(len(found))
    return Found(
        lost=_shared(lost, limit)[: asked.count],
        gained=_shared(gained, limit)[: asked.count],
        worst=[
            max((one.worst[case] for one in found), key=lambda patch: patch.losses[case])
            for case in range(len(found[0].worst))
        ],
        worse=[sum(of_case) for of_case in zip(*(one.worse for one in found), strict=True)],
        patches=sum(one.patches for one in found),
    )


def search_one(image: Sequence[Judged], asked: Patches, shave: int = 0) -> Found:
    """Look through one image, as it is judged for each case; patches of one kind do not touch.

    A patch whose error is below one grey level (the root of the mean square) is as good as HR: it is no small gain
    where that holds for all cases, and a case is not worse than bicubic there.
    """
    losses = np.stack([patch_errors(one.sr, one.hr, asked.side, shave) for one in image])
    bicubic = patch_errors(image[0].bicubic, image[0].hr, asked.side, shave)

    def patch(place: tuple[int, int]) -> JudgedPatch:
        y, x = (shave + asked.side * at for at in place)
        seen = (image[0].bicubic, *(one.sr for one in image), image[0].hr)
        cut = tuple(each[:, y : y + asked.side, x : x + asked.side].clamp(0, 1) for each in seen)
        left, top = image[0].corner
        return JudgedPatch(
            image[0].name, left + x, top + y, tuple(losses[:, *place].tolist()), float(bicubic[place]), cut
        )

    seen = losses > SEEN
    shortfall = np.where(seen.any(0), (psnr(bicubic) - psnr(losses)).mean(0), -np.inf)
    return Found(
        lost=[*map(patch, apart(losses.mean(0), asked.count))],
        gained=[*map(patch, apart(shortfall, asked.count))],
        worst=[patch(place) for loss in losses for place in apart(loss, 1)],
        worse=((losses > bicubic) & seen).sum((1, 2)).tolist(),
        patches=bicubic.size,
    )


def _shared(patches: Iterable[JudgedPatch], limit: int) -> list[JudgedPatch]:
    """The first patches, at most `limit` from one image: one bad image would fill the sheet."""
    taken: Counter[str] = Counter()
    kept = []
    for patch in patches:
        taken[patch.image] += 1
        if taken[patch.image] <= limit:
            kept.append(patch)
    return kept


def failures(cases: Sequence[Case], asked: Patches, images: Sequence[Iterable[Judged]]) -> Section:
    """A contact sheet of the patches in which networks fail, and how often they are worse than bicubic.

    Args:
        cases: of one scale.
        asked: what is cut out and shown.
        images: for each case what it is judged on, the same images in the same order (`judged` of a benchmark,
            `own` of a photo).

    Raises:
        UserError: no image is as large as a patch.
    """
    found = search(zip(*images, strict=True), asked, shave=cases[0].scale)
    return Section(
        name="failures",
        title="Where it fails",
        picture=_picture([case.name for case in cases], found, asked),
        reading=(
            "A column is a place, enlarged: bicubic above, what each network makes of it, and HR below, with the PSNR "
            "of the patch in dB. The upper rows show the places with the largest error; if bicubic is no better there, "
            "they are hard for any network. The lower rows show the smallest gains over bicubic: below 0 is a loss."
        ),
        said=tuple(_sentence(case.name, number, found) for number, case in enumerate(cases)),
        figures={case.name: {"worse": found.share(number)} for number, case in enumerate(cases)},
    )


def own(case: Case, corner: tuple[int, int] = (0, 0)) -> Judged:
    """What a case makes of its own image, which begins at a corner of its file."""
    hr, sr, bicubic = (image[0].cpu() for image in (case.image.hr, case.sr, case.bicubic))
    return Judged(case.image.name, hr, sr, bicubic, corner)


def _sentence(name: str, number: int, found: Found) -> str:
    worst, share = found.worst[number], FIGURES[0].text(found.share(number))
    return (
        f"{name}: the worst patch is at [{worst.x},{worst.y}] of {worst.image}: {psnr(worst.losses[number]):.1f} dB, "
        f"bicubic {psnr(worst.bicubic):.1f} dB; it is worse than bicubic in {share} of {found.patches} patches."
    )


def _picture(names: Sequence[str], found: Found, asked: Patches) -> Pixels:
    """The two kinds of patches, one below the other."""
    tile = asked.side * max(1, TILE // asked.side) if asked.side < TILE else TILE
    canvas = Canvas(LABEL + max(4, asked.count) * (tile + GAP))
    top = _block(
        canvas, 4, "largest error: PSNR of the patch, and how much that is above bicubic", names, found.lost, tile
    )
    _block(canvas, top + LINE, "smallest gain over bicubic: below 0, SR is worse", names, found.gained, tile)
    return canvas.pixels


def _block(
    canvas: Canvas, top: int, title: str, names: Sequence[str], patches: Sequence[JudgedPatch], tile: int
) -> int:
    """A column a patch, a row a method; gives the row of pixels below."""
    canvas.words(
        (4, top), title if patches else f"{title.partition(':')[0]}: no patch has an error that can be seen", bold=True
    )
    y = top + LINE + GAP
    for number, name in enumerate(("bicubic", *names, "HR") if patches else ()):
        canvas.caption((4, y), name, width=LABEL - 8)
        for column, patch in enumerate(patches):
            x = LABEL + column * (tile + GAP)
            canvas.picture((x, y), patch.seen[number], (tile, tile))
            for line, words in enumerate(_below(patch, number, tile)):
                canvas.words((x + tile // 2, y + tile + 1 + line * LINE), words, anchor="ma")
        y += tile + LINE + GAP
    return y + LINE


def _below(patch: JudgedPatch, row: int, tile: int) -> list[str]:
    """What stands below a tile: its PSNR, and of SR how much that is above bicubic; where it is, below HR."""
    if row == len(patch.losses) + 1:
        return [broken(patch.image, tile)[0], f"[{patch.x},{patch.y}]"]
    bicubic = psnr(patch.bicubic)
    if row == 0:
        return [f"{bicubic:.1f} dB"]
    reached = psnr(patch.losses[row - 1])
    return [f"{reached:.1f} dB ({reached - bicubic:+.1f})"]
