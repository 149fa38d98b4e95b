"""One generator, some images, a protocol: PSNR, SSIM and figures of the user's own of each image.

`seen`, `bicubic` and `pair` are what a protocol means for an image. Validation during training uses the last two: its
LR is what the data's degradation makes.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from upsweep.common.errors import UserError, within_memory
from upsweep.imaging.colour import rgb_to_y, with_chroma
from upsweep.imaging.resize import enlarge, imresize
from upsweep.metrics.functional import psnr, ssim
from upsweep.metrics.metric import MAX_PSNR
from upsweep.metrics.own import OfEach
from upsweep.metrics.protocol import Protocol
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage, EvalImages, batch_of_one
from upsweep.tasks.super_resolution.given import GivenImages


class Figures(NamedTuple):
    """What one image came to: PSNR in dB (at most 100), SSIM, and what the user's own metrics say, in their order."""

    image: str
    psnr: float
    ssim: float
    own: tuple[float, ...] = ()


@torch.inference_mode()
def evaluate(
    generator: Upscaler | GivenImages,
    images: Sequence[EvalImage] | EvalImages,
    protocol: Protocol | None = None,
    *,
    device: torch.device | str = "cpu",
    own: Sequence[OfEach] = (),
    on_image: Callable[[EvalImage, Tensor, Figures], None] | None = None,
) -> list[Figures]:
    """Judge a generator on whole images; the figures in the order of the images.

        images = benchmark_images("set5", Path("data"), scale=2, channels=generator.channels)
        psnr, ssim = mean(evaluate(generator, images))

    Where a torch.distributed process group exists, each process judges its share, and all are given all figures.

    Args:
        generator: put into evaluation mode, and moved to the device; or SR images that somebody else has made.
        images: without a batch axis, LR as for the papers; what another protocol stores is derived from HR.
        protocol: the papers' where none is given.
        device: to run the generator on.
        own: metrics of the user's own, made for this protocol and the generator's scale.
        on_image: is given each image as the protocol has it (with N = 1, on the device), its SR (1, C, H, W), not
            clipped, and its figures, in the process that judged it.

    Raises:
        UserError: there are no images; one is too small, or no larger than its LR times the generator's scale; an SR
            is NaN or infinite in places, takes more memory than there is, or a given one cannot be read.
    """
    protocol = protocol or Protocol()
    if len(images) == 0:
        raise UserError("There is no image to judge the generator on.")
    if isinstance(generator, Upscaler):
        generator = generator.to(device).eval()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    mine: dict[int, Figures] = {}
    for i in range(rank, len(images), world):
        image = seen(batch_of_one([images[i]]).each(lambda x: x.to(device)), protocol, generator.scale)
        sr = _sr(generator, image, protocol)
        mine[i] = _figures(sr, image, protocol, generator.scale, own)
        if on_image is not None:
            on_image(image, sr, mine[i])
    shares = [mine] * world
    if world > 1:
        dist.all_gather_object(shares, mine)
    return [shares[i % world][i] for i in range(len(images))]


def mean(figures: Sequence[Figures]) -> tuple[float, float]:
    """Mean PSNR and mean SSIM over the images; the sum is exact, so that no order matters."""
    return statistics.fmean(f.psnr for f in figures), statistics.fmean(f.ssim for f in figures)


def seen(image: EvalImage, protocol: Protocol, scale: int) -> EvalImage:
    """An image (with N = 1) with its LR as the protocol stores it; the papers' is as it was prepared."""
    if protocol.lr == "double":
        return image
    # In float64 on the CPU: a level must not hang on a last bit, or on the device.
    stored = image.hr if image.rgb_hr is None else image.rgb_hr
    small = protocol.low_resolution(stored.cpu().double(), scale)
    if image.rgb_hr is None:
        return image._replace(lr=small.to(stored))
    lr = rgb_to_y(small) if image.hr.shape[1] == 1 else small
    return image._replace(lr=lr.to(stored), rgb_lr=small.to(stored))


def bicubic(image: EvalImage, protocol: Protocol, scale: int) -> Tensor:
    """Bicubic's SR of an image: of what the protocol compares, and stored as the protocol stores LR."""
    colour = protocol.space == "rgb" or protocol.lr == "uint8"
    lr = image.rgb_lr if colour and image.rgb_lr is not None else image.lr
    if protocol.lr == "uint8":
        return imresize(lr.cpu().double(), scale, uint8=True).to(lr)
    return enlarge(lr.float(), scale)


def _sr(generator: Upscaler | GivenImages, image: EvalImage, protocol: Protocol) -> Tensor:
    """The SR of an image, whoever makes it."""
    if isinstance(generator, GivenImages):
        return generator.of(image)
    if isinstance(generator, Bicubic):
        return bicubic(image, protocol, generator.scale)
    height, width = image.lr.shape[-2:]
    try:
        with within_memory(f"out of memory for its LR of {width}x{height} pixels: make SR in tiles, with tile=128."):
            sr: Tensor = generator(image.lr)
    except UserError as error:
        raise UserError(f"{image.name}: {error}") from error
    if not sr.isfinite().all():
        raise UserError(f"{image.name}: its SR is NaN or infinite in places, so that it cannot be judged.")
    return sr


def pair(sr: Tensor, image: EvalImage, protocol: Protocol, scale: int) -> tuple[Tensor, Tensor]:
    """SR and the HR that it is held to; a luma gets bicubic colours where the protocol compares colours."""
    if image.rgb_hr is None or image.rgb_lr is None:
        return sr, image.hr
    if sr.shape[1] == 1 and protocol.space == "rgb":
        sr = with_chroma(sr, image.rgb_lr, scale)
    if sr.shape[1] == 3:
        return sr, image.rgb_hr
    return sr, image.hr if protocol.round_y else rgb_to_y(image.rgb_hr)


def _figures(sr: Tensor, image: EvalImage, protocol: Protocol, scale: int, own: Sequence[OfEach]) -> Figures:
    grey = image.rgb_hr is None
    a, b = (protocol.planes(x[0], scale, grey=grey) for x in pair(sr.float(), image, protocol, scale))
    if a.shape != b.shape:
        has, wants = (f"{planes.shape[-1]}x{planes.shape[-2]}" for planes in (a, b))
        raise UserError(f"{image.name}: its SR has {has} pixels to compare and its HR {wants}.")
    try:
        said = tuple(float(metric.figure(a, b)) for metric in own)
        return Figures(image.name, psnr(a, b).clamp(max=MAX_PSNR).item(), ssim(a, b).item(), said)
    except UserError as error:
        raise UserError(f"{image.name}: {error}") from error
