"""What an upsampler does, as the deconvolution that it equals: held to closed forms and to the layers themselves."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upsweep.blocks import Recipe
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import ICNR, He, Init, Interpolation
from upsweep.blocks.norm import InstanceNorm, Norm
from upsweep.blocks.upsampler import Deconv, Enlarge, FixedBicubic, Resize, SubPixel, Upsampler
from upsweep.explaining.case import Case, case
from upsweep.explaining.upsamplers import (
    FIGURES,
    WAVES,
    UpsamplingLayer,
    answer_to_edge,
    answer_to_flat,
    behaviour,
    equal_deconvolution,
    is_linear,
    phases_of,
    principal,
    upsampler_of,
    upsamplers,
    waves,
)
from upsweep.imaging.resize import shrink
from upsweep.networks.upscalers.article_net import ArticleNet
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.deconvnet import DeconvNet
from upsweep.networks.upscalers.edsr import EDSR
from upsweep.networks.upscalers.espcn import ESPCN
from upsweep.networks.upscalers.fsrcnn import FSRCNN
from upsweep.networks.upscalers.lapsrn import LapSRN
from upsweep.networks.upscalers.sesr import SESR
from upsweep.networks.upscalers.srcnn import SRCNN
from upsweep.networks.upscalers.unet import UNet
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage
from upsweep.training.callbacks import pattern_of

pytestmark = pytest.mark.usefixtures("one_thread")

UPSAMPLERS: dict[str, Upsampler] = {
    "deconv": Deconv(),
    "deconv, 9x9": Deconv(9),
    "subpixel": SubPixel(),
    "subpixel, 5x5": SubPixel(5),
    "nearest": Resize(),
    "bilinear": Resize(mode="bilinear"),
    "bicubic": FixedBicubic(),
}


def layer_of(module: nn.Module, stride: int, channels: int = 1) -> UpsamplingLayer:
    return UpsamplingLayer((module,), stride, channels)


def drawn_at(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def started(module: nn.Module, init: Init) -> nn.Module:
    torch.manual_seed(3)
    init(module, nn.ReLU)
    return module


def recipe(upsampler: Upsampler, init: Init | None = None, norm: Norm | None = None) -> Recipe:
    return Recipe(init or He(), nn.ReLU, norm or Norm(), Dropout(), upsampler)


# ---------------------------------------------------------------------------------------------------------
# The equal deconvolution
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 3, 4, 8])
@pytest.mark.parametrize("name", UPSAMPLERS)
def test_the_equal_deconvolution_makes_what_the_layer_makes(name: str, stride: int) -> None:
    module = UPSAMPLERS[name].layer(5, 3, stride).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(stride))
    layer = layer_of(module, stride, 5)
    kernel, x = equal_deconvolution(layer), drawn_at(2, 5, 16, 17)
    reach = kernel.shape[-1] // stride // 2
    assert kernel.shape == (5, 3, stride * (2 * reach + 1), stride * (2 * reach + 1))
    made = F.conv_transpose2d(x, kernel, stride=stride, padding=stride * reach)
    bias = answer_to_flat(layer, torch.zeros(5), reach).repeat(1, *x.shape[-2:])  # which phases need not share
    edge = slice(3 * stride, -3 * stride)  # the padding of borders is not the deconvolution's
    torch.testing.assert_close((made + bias)[..., edge, edge], module(x)[..., edge, edge])


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_nearest_enlargement_is_a_square_of_ones_and_a_convolution_spreads_it(stride: int) -> None:
    nearest = equal_deconvolution(layer_of(Enlarge(stride, "nearest"), stride))
    torch.testing.assert_close(nearest, torch.ones(1, 1, stride, stride, dtype=torch.float64))
    box = Resize().layer(1, 1, stride)
    nn.init.ones_(box[1].weight)  # type: ignore[index]
    line = torch.tensor(
        [1.0, 2.0, *[3.0] * (stride - 2), 2.0, 1.0], dtype=torch.float64
    )  # a square of s, with one of 3
    kernel = equal_deconvolution(layer_of(box, stride))[0, 0]
    used = slice(stride - 1, 2 * stride + 1)
    torch.testing.assert_close(kernel[used, used], torch.outer(line, line))
    assert kernel.sum() == line.sum() ** 2


def test_the_kernel_of_a_deconvolution_is_its_weight() -> None:
    module = Deconv(9).layer(3, 2, 2)
    kernel = equal_deconvolution(layer_of(module, 2, 3))
    torch.testing.assert_close(kernel[..., :9, :9].float(), module.weight)  # padding 4: it begins two LR pixels before
    assert kernel.shape[-1] == 10 and not kernel[..., 9, :].any()


def test_phases_put_together_again_are_the_kernel() -> None:
    kernel = drawn_at(3, 2, 12, 12)
    phases, again = phases_of(kernel, 4), torch.zeros_like(kernel)
    assert phases.shape == (3, 2, 4, 4, 3, 3)
    for row in range(4):
        for column in range(4):
            again[..., row::4, column::4] = phases[:, :, row, column]
    assert torch.equal(again, kernel)


# ---------------------------------------------------------------------------------------------------------
# Phases, waves, what a constant and an edge become
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_icnr_makes_all_phases_alike(stride: int) -> None:
    layer = layer_of(started(SubPixel().layer(4, 3, stride), ICNR()), stride, 4)
    phases = phases_of(equal_deconvolution(layer), stride)
    torch.testing.assert_close(phases, phases[:, :, :1, :1].expand_as(phases))
    lines = waves(phases)
    torch.testing.assert_close(lines, lines[:1].expand_as(lines))
    flat = answer_to_flat(layer, torch.rand(4), 1)
    torch.testing.assert_close(flat, flat[:, :1, :1].expand_as(flat))


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_a_deconvolution_that_interpolates_answers_a_constant_with_it(kernel: str, stride: int) -> None:
    init = He(deconv=Interpolation(kernel=kernel))  # type: ignore[arg-type]
    layer = layer_of(started(Deconv(multiple=4).layer(2, 2, stride), init), stride, 2)
    flat = answer_to_flat(layer, torch.tensor([0.3, -0.7]), 2)
    wanted = torch.tensor([0.3, -0.7], dtype=torch.float64)[:, None, None].expand_as(flat)
    torch.testing.assert_close(flat, wanted, atol=1e-6, rtol=0)


def test_equal_weights_of_kernel_3_and_stride_2_make_the_known_checkerboard() -> None:
    """Odena et al. 2016: an axis sums 1 or 2 taps, so that the pixels get 1, 2, 2 and 4 times the value."""
    module = Deconv(3).layer(1, 1, 2)
    nn.init.ones_(module.weight)  # type: ignore[arg-type]
    nn.init.zeros_(module.bias)  # type: ignore[arg-type]
    layer = layer_of(module, 2)
    flat = answer_to_flat(layer, torch.tensor([0.5]), 1)[0]
    assert sorted(flat.flatten().tolist()) == [0.5, 1.0, 1.0, 2.0]
    gains = phases_of(equal_deconvolution(layer), 2).sum((-2, -1)).flatten()
    assert sorted(gains.tolist()) == [1, 2, 2, 4]
    assert sorted(waves(phases_of(equal_deconvolution(layer), 2))[:, 0].tolist()) == pytest.approx([1, 2, 2, 4])


def test_waves_are_the_magnitude_of_the_fourier_transform() -> None:
    """Of the taps (1/2, 1/2) on an axis: cos(pi f / 2), f = 1 being LR's highest; of a shift: 1."""
    box, shift = torch.full((1, 1, 1, 1, 2, 2), 0.25).double(), torch.zeros(1, 1, 1, 1, 3, 3).double()
    shift[..., 2, 0] = 1
    f = torch.linspace(0, 1, WAVES).double()
    torch.testing.assert_close(waves(box)[0], torch.cos(torch.pi * f / 2), atol=1e-9, rtol=0)
    torch.testing.assert_close(waves(shift)[0], torch.ones_like(f))


def test_the_principal_pattern_is_what_all_channels_have_in_common() -> None:
    pattern = drawn_at(6, 6)
    kernel = torch.tensor([[2.0, -1.0], [0.5, 3.0]], dtype=torch.float64)[:, :, None, None] * pattern
    found, share = principal(kernel)
    rms = torch.tensor([2.0, 1.0, 0.5, 3.0], dtype=torch.float64).square().mean().sqrt()
    torch.testing.assert_close(found, rms * pattern * pattern.flatten()[pattern.abs().argmax()].sign())
    assert share == pytest.approx(1)
    found, share = principal(torch.stack([pattern, pattern.flip(0)])[None])
    assert 0.5 <= share < 1
    assert principal(torch.zeros(2, 2, 4, 4, dtype=torch.float64))[1] == 0


def test_the_edge_of_nearest_is_a_step_and_of_bilinear_a_slope() -> None:
    left, right = torch.tensor([1.0]), torch.tensor([3.0])
    line, sides = answer_to_edge(layer_of(Enlarge(2, "nearest"), 2), left, right, 0)
    assert line[0].tolist() == [1.0] * 6 + [3.0] * 6 and sides.flatten().tolist() == [1, 3]
    line, sides = answer_to_edge(layer_of(Enlarge(2, "bilinear"), 2), left, right, 1)
    assert line[0].tolist() == [1.0] * 5 + [1.5, 2.5] + [3.0] * 5  # a quarter of the way, and three


# ---------------------------------------------------------------------------------------------------------
# Which layer it is
# ---------------------------------------------------------------------------------------------------------


def seen(channels: int = 1, size: tuple[int, int] = (24, 28)) -> Tensor:
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(5))


def last(network: Upscaler) -> UpsamplingLayer:
    layer = upsampler_of(network.eval(), seen(network.channels))
    assert layer is not None
    return layer


@pytest.mark.parametrize("name", UPSAMPLERS)
def test_the_layer_that_enlarges_is_found_whole(name: str) -> None:
    """FSRCNN ends with it; in DeconvNet a norm, an activation and a convolution follow."""
    wholes: dict[str, Callable[[FSRCNN | DeconvNet], nn.Module]] = {
        "FSRCNN": lambda net: net.upsampler,
        "DeconvNet": lambda net: net.upsampler[-1].layer,  # type: ignore[index]
    }
    for network in (FSRCNN(recipe(UPSAMPLERS[name]), scale=2), DeconvNet(recipe(UPSAMPLERS[name]), scale=4, width=8)):
        whole = wholes[type(network).__name__](network)
        parts = tuple(whole) if isinstance(whole, nn.Sequential) else (whole,)
        found = last(network)
        assert found.parts == parts and found.stride == 2
        assert found.learned == any(True for _ in whole.parameters())


def test_of_two_levels_the_features_goes_before_the_images() -> None:
    network = LapSRN(recipe(Deconv()), scale=4, width=8, depth=1)
    assert last(network).parts == (network.levels[1].upsampler.layer,)  # type: ignore[union-attr]


def test_networks_of_every_kind_have_their_last_one() -> None:
    unet = UNet(recipe(Deconv()), scale=2, width=4, depth=2)
    assert last(unet).parts == (unet.upsamplers[-1].layer,)
    srcnn = SRCNN(recipe(FixedBicubic()), scale=3, width=8)
    assert last(srcnn).parts == (srcnn.upsampler,) and not last(srcnn).learned
    bicubic = Bicubic(scale=3)
    assert last(bicubic).parts == (bicubic,) and last(bicubic).stride == 3
    edsr = EDSR(recipe(SubPixel()), scale=8, width=4, depth=1)
    assert last(edsr).parts == (edsr.upsampler[-1].layer,)
    assert upsampler_of(ArticleNet(recipe(Deconv()), scale=2, width=4), seen(3)) is None


class Strange(Upscaler):
    """A stranger's: torch's own layers, the convolution and its shuffle apart."""

    def __init__(self, *, shuffles: bool) -> None:
        super().__init__(2, 1)
        self.features = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 1))
        self.tail = nn.PixelShuffle(2) if shuffles else nn.Upsample(scale_factor=2, mode="bilinear")
        self.end = nn.Conv2d(2 if shuffles else 8, 1, 3, padding=1)


def test_a_strangers_shuffle_and_interpolation_are_joined_by_their_convolution() -> None:
    shuffles, resizes = Strange(shuffles=True), Strange(shuffles=False)
    assert last(shuffles).parts == (shuffles.features[2], shuffles.tail) and last(shuffles).channels == 6
    assert last(resizes).parts == (resizes.tail, resizes.end) and last(resizes).channels == 8


class Curved(Upscaler):
    def body(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2).tanh()


def test_what_is_not_linear_is_no_upsampler() -> None:
    assert upsampler_of(Curved(2, 1), seen()) is None
    assert not is_linear(layer_of(nn.Sequential(Enlarge(2, "nearest"), nn.PReLU()), 2), (5, 5))
    assert is_linear(layer_of(nn.ConvTranspose2d(1, 1, 4, 2, 1), 2), (5, 5))


# ---------------------------------------------------------------------------------------------------------
# Before an image
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["deconv", "subpixel", "nearest"])
def test_the_answer_to_the_mean_is_the_mean_of_the_answers_phase_by_phase(name: str) -> None:
    """Which makes the checkerboard of a layer a share of what it makes of the image."""
    module = UPSAMPLERS[name].layer(3, 2, 2).double()
    x = drawn_at(1, 3, 40, 40).add(0.5)
    x = F.pad(x, (3, 3, 3, 3), mode="circular")  # no border
    made = module(x)[0, :, 6:-6, 6:-6].reshape(2, 40, 2, 40, 2).mean((1, 3))
    torch.testing.assert_close(answer_to_flat(layer_of(module, 2, 3), x[0, :, 3:-3, 3:-3].mean((1, 2)), 3), made)


def image(channels: int, scale: int) -> EvalImage:
    hr = seen(channels, (48, 72)).mul(0.6).add(0.2)
    return EvalImage("photo", shrink(hr, scale), hr, None, None)


def made(name: str, network: Upscaler) -> Case:
    return case(name, network, image(network.channels, network.scale))


def test_no_checkerboard_of_a_layer_that_starts_alike_and_much_of_one_that_does_not() -> None:
    torch.manual_seed(7)
    good = behaviour(FSRCNN(recipe(SubPixel(), ICNR())).eval(), seen())
    bad = behaviour(FSRCNN(recipe(SubPixel())).eval(), seen())
    assert good is not None and bad is not None
    assert good.checkerboard < 1e-6 and 0.1 < bad.checkerboard < 1.5
    assert bad.extent == 6 and good.extent == 6


def test_bicubic_overshoots_an_edge_by_what_keys_cubic_does() -> None:
    """At x2 the pixel before the last of the left side lies 1.25 from the right side, where the cubic is -9/128."""
    found = behaviour(Bicubic().eval(), seen())
    assert found is not None
    line, end = found.step
    assert found.ringing / end == pytest.approx(9 / 128, abs=1e-6)
    assert line[0] == pytest.approx(0, abs=1e-9) and line[-1] == pytest.approx(end)


@pytest.mark.parametrize("views", [2, 3, 8])
def test_an_upsampler_answers_the_same_edge_however_many_turns_of_the_image_its_network_sees(views: int) -> None:
    torch.manual_seed(7)
    network, photo = FSRCNN(recipe(SubPixel())).eval(), seen(1, (24, 40))
    once = behaviour(network, photo)
    network.views = views
    found = behaviour(network, photo)
    assert once is not None and found is not None and network.views == views
    assert (found.ringing, found.step[1], found.checkerboard) == (once.ringing, once.step[1], once.checkerboard)


@pytest.mark.parametrize("scale", [3, 8])
def test_a_section_has_a_row_figures_and_a_sentence_of_each(scale: int) -> None:
    torch.manual_seed(0)
    cases = [
        made("deconv", FSRCNN(recipe(Deconv()), scale=scale)),
        made("subpixel", ESPCN(recipe(SubPixel()), scale=scale, channels=3, width=8)),
        made("article", ArticleNet(recipe(Deconv()), scale=scale, width=4)),
        made("bicubic", Bicubic(scale=scale)),
    ]
    section = upsamplers(cases)
    assert section.picture.dtype.name == "uint8" and section.picture.shape[0] == 3 * 198  # the article's net has no row
    for current, sentence in zip(cases, section.said, strict=True):
        (figure,) = section.figures[current.name].items()
        assert current.name in sentence and FIGURES[0].text(figure[1]) in sentence and figure[0] == FIGURES[0].name
    assert section.figures["bicubic"]["checkerboard"] < 1e-3
    assert section.figures["subpixel"]["checkerboard"] > 1


def test_the_checkerboard_is_what_training_logs_in_grey_levels() -> None:
    torch.manual_seed(1)
    network = SESR(recipe(Deconv()), scale=2, width=4).eval()
    logged = pattern_of(network)
    assert logged is not None and logged.energy > 0
    assert upsamplers([made("sesr", network)]).figures["sesr"]["checkerboard"] == 255 * logged.energy


def test_networks_without_an_upsampler_and_with_dead_features_are_drawn_too() -> None:
    assert "No linear layer of article" in upsamplers([made("article", ArticleNet(recipe(Deconv()), width=4))]).said[0]
    dead = FSRCNN(recipe(Deconv()))
    nn.init.zeros_(dead.upsampler.weight)  # type: ignore[arg-type]
    nn.init.zeros_(dead.upsampler.bias)  # type: ignore[arg-type]
    section = upsamplers([made("dead", dead)])
    assert section.figures["dead"] == {"checkerboard": 0} and " has 0.00 % of its strength" in section.said[0]


def test_a_network_that_sees_the_whole_image_works_and_keeps_no_hooks() -> None:
    network = DeconvNet(recipe(Deconv(), norm=InstanceNorm()), width=8)
    assert upsamplers([made("instance", network)]).figures["instance"]["checkerboard"] >= 0
    assert (found := behaviour(network, seen())) is not None and found.checkerboard > 0
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in network.modules())
