"""Promises of `upsweep.blocks`: signals keep their variance, and every knob does what its name says."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from upsweep.blocks import Block, PreBlock, Recipe, activation
from upsweep.blocks.conv import SubPixelConv2d, conv
from upsweep.blocks.deconv import Deconv2d, Form, deconv_as_subpixel, run_as
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import (
    ICNR,
    LSUV,
    He,
    Identity,
    Init,
    Interpolation,
    Layer,
    Normal,
    Orthogonal,
    Torch,
    Xavier,
    fans,
)
from upsweep.blocks.norm import BatchNorm, ChannelNorm, GroupNorm, Norm, SpectralNorm, WeightNorm
from upsweep.blocks.upsampler import Deconv, FixedBicubic, Resize, SubPixel, Upsampler
from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge
from upsweep.metrics.checkerboard import checkerboard, portrait, response
from upsweep.networks import checkpoints
from upsweep.networks.upscalers import Upscaler
from upsweep.networks.upscalers.article_net import ArticleNet
from upsweep.networks.upscalers.deconvnet import DeconvNet
from upsweep.networks.upscalers.fsrcnn import FSRCNN

CONF = Path(__file__).parents[1] / "conf"
Factory = Callable[..., nn.Module]

RELU_FAMILY: dict[str, Factory] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, 0.2),
    "prelu": activation.PReLU,
}

# ---------------------------------------------------------------------------------------------------------
# Variance through ten layers. On a torus there is no border, each stride-s convolution has a kernel that is
# a multiple of s, and so every input counts the same: the mean square of the signals, and of the gradients of
# white noise, is then exactly the theory's in expectation over the weights, at any width.
# ---------------------------------------------------------------------------------------------------------


def on_torus(layer: Layer, x: Tensor) -> Tensor:
    """The layer without its bias, its input repeating endlessly; (N, C, H, W) -> (N, C', s H or H / s, ...)."""
    kernel, stride, groups = layer.kernel_size[0], layer.stride[0], layer.groups
    height, width = x.shape[-2:]
    if isinstance(layer, nn.ConvTranspose2d):
        reach = -(-kernel // stride)
        padded = F.pad(x, (reach, 0, reach, 0), mode="circular")
        y = F.conv_transpose2d(padded, layer.weight, None, stride, 0, stride - 1, groups)
        start = reach * stride
        return y[..., start : start + height * stride, start : start + width * stride]
    padded = F.pad(x, (0, kernel - 1, 0, kernel - 1), mode="circular")
    return F.conv2d(padded, layer.weight, None, stride, groups=groups)


def counted_fans(layer: Layer, side: int = 12) -> tuple[float, float]:
    """How many numbers reach one output, and how many one input reaches: counted, by sending ones through."""
    ones = type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size[0], layer.stride[0])
    nn.init.ones_(ones.weight)
    x = torch.ones(1, layer.in_channels, side, side, requires_grad=True)
    y = on_torus(ones, x)
    (reached,) = torch.autograd.grad(y.sum(), x)
    return y.mean().item(), reached.mean().item()


TEN_LAYERS: list[Layer] = [
    nn.Conv2d(24, 36, 3),
    nn.ConvTranspose2d(36, 24, 4, 2),
    nn.Conv2d(24, 36, 4, 2),
    nn.ConvTranspose2d(36, 24, 9, 2),  # uneven overlap
    nn.Conv2d(24, 36, 4, 2),
    nn.ConvTranspose2d(36, 24, 6, 3),
    nn.Conv2d(24, 36, 6, 3),
    nn.ConvTranspose2d(36, 24, 5, 3),  # uneven overlap
    nn.Conv2d(24, 36, 3, 3),
    nn.ConvTranspose2d(36, 24, 3, 1),
]


class Power(NamedTuple):
    """Mean square of signals and of gradients after ten layers, relative to before them."""

    signals: float
    gradients: float


def theory(init: He | Xavier, factory: Factory) -> Power:
    """What the weights' variance, the counted fans and E[f(z)^2] say the powers are."""
    kept = activation.gain(factory) ** -2  # also E[f'(z)^2], for the ReLU family
    factors = [[fan * init.std(layer, factory) ** 2 * kept for fan in counted_fans(layer)] for layer in TEN_LAYERS]
    signals, gradients = map(math.prod, zip(*factors, strict=True))
    return Power(signals, gradients)


def measured(init: Init, factory: Factory, draws: int) -> tuple[Power, Power]:
    """Mean, and its standard error, over many draws of the ten layers' weights."""
    layers = nn.ModuleList(TEN_LAYERS)
    acts = [activation.make(factory, layer.in_channels) for layer in TEN_LAYERS]
    powers = torch.empty(draws, 2, dtype=torch.float64)
    for draw in range(draws):
        init(layers, factory)
        z = x = torch.randn(1, 24, 6, 6, requires_grad=True)
        for layer, act in zip(TEN_LAYERS, acts, strict=True):
            z = on_torus(layer, act(z))
        (gradient,) = torch.autograd.grad(z, x, torch.randn_like(z))
        powers[draw] = torch.stack([z.detach().square().mean(), gradient.square().mean()])
    mean, error = powers.mean(0), powers.std(0) / draws**0.5
    return Power(*mean.tolist()), Power(*error.tolist())


def agrees(mean: float, error: float, theory: float) -> bool:
    """Within four standard errors; and those are small enough for the answer to mean something."""
    assert error < 0.15 * mean, "too few draws to tell"
    return abs(mean - theory) < 4 * error


@pytest.mark.parametrize("name", RELU_FAMILY)
def test_he_keeps_the_variance_of_signals(name: str) -> None:
    torch.manual_seed(1)
    mean, error = measured(He(mode="fan_in"), RELU_FAMILY[name], 60)
    assert theory(He(mode="fan_in"), RELU_FAMILY[name]).signals == pytest.approx(1, rel=1e-5)
    assert agrees(mean.signals, error.signals, 1.0)


@pytest.mark.parametrize("name", RELU_FAMILY)
def test_he_keeps_the_variance_of_gradients(name: str) -> None:
    torch.manual_seed(2)
    mean, error = measured(He(mode="fan_out", distribution="uniform"), RELU_FAMILY[name], 60)
    assert theory(He(mode="fan_out"), RELU_FAMILY[name]).gradients == pytest.approx(1, rel=1e-5)
    assert agrees(mean.gradients, error.gradients, 1.0)


@pytest.mark.parametrize("gain", [1.0, "auto"])
def test_xavier_follows_glorots_theory_both_ways(gain: Any) -> None:
    torch.manual_seed(3)
    init, factory = Xavier(gain=gain), RELU_FAMILY["linear" if gain == 1 else "leaky_relu"]
    (signals, gradients), expected = measured(init, factory, 60), theory(init, factory)
    for mean, error, value in zip(signals, gradients, expected, strict=True):
        assert agrees(mean, error, value)
    # The compromise between both fans: over pairs of layers that undo each other's stride, neither is lost.
    assert 0.05 < expected.signals < 20 and 0.05 < expected.gradients < 20


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
def test_torchs_fans_lose_the_variance_in_deconvolutions(mode: Any) -> None:
    torch.manual_seed(4)
    init = He(mode=mode, fan="torch")
    mean, error = measured(init, nn.ReLU, 60)
    kind = 0 if mode == "fan_in" else 1
    assert not agrees(mean[kind], error[kind], 1.0)
    assert mean[kind] < 0.2
    # It fails as the theory with the true fans says it must, and forwards only by its deconvolutions.
    assert agrees(mean[kind], error[kind], theory(init, nn.ReLU)[kind])
    for layer in TEN_LAYERS:
        same = fans(layer, "torch")[kind] == fans(layer)[kind]
        assert same == (isinstance(layer, nn.Conv2d) and (mode == "fan_in" or layer.stride == (1, 1)))


# ---------------------------------------------------------------------------------------------------------
# Fans and deviations
# ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_fans_are_what_counting_finds(deconv: bool, kernel: int, stride: int, a: int, b: int) -> None:
    layer = (nn.ConvTranspose2d if deconv else nn.Conv2d)(a, b, kernel, stride)
    assert fans(layer) == pytest.approx(counted_fans(layer), rel=1e-6)


def test_fans_by_hand() -> None:
    assert fans(nn.Conv2d(3, 8, 5)) == (75, 200)
    assert fans(nn.Conv2d(4, 8, 3, groups=2)) == (18, 36)
    assert fans(nn.Conv2d(4, 8, 4, stride=2)) == (64, 32)
    assert fans(nn.ConvTranspose2d(4, 8, 4, stride=2)) == (16, 128)
    assert fans(nn.ConvTranspose2d(4, 8, (4, 6), stride=(2, 3))) == (16, 192)
    assert fans(nn.ConvTranspose2d(4, 8, 4, stride=2), "torch") == (128, 64)


@pytest.mark.parametrize("shape", [nn.Conv2d(3, 8, 5), nn.ConvTranspose2d(3, 8, 4, 2)])
def test_torch_fans_are_torchs(shape: Layer) -> None:
    count = nn.init._calculate_fan_in_and_fan_out(shape.weight)
    assert fans(shape, "torch") == count


def test_fsrcnns_deconvolution() -> None:
    """facts.md: 0.157 by torch's count, 0.042 by the true one."""
    layer = nn.ConvTranspose2d(56, 1, 9, stride=2, padding=4, output_padding=1)
    assert He(fan="torch").std(layer, nn.ReLU) == pytest.approx(0.157, abs=5e-4)
    assert He(fan="effective").std(layer, nn.ReLU) == pytest.approx(0.042, abs=5e-4)


def test_he_is_torchs_where_torch_is_right() -> None:
    layer = nn.Conv2d(16, 32, 3)
    expected = torch.empty(512, 16, 3, 3)
    nn.init.kaiming_normal_(expected, nonlinearity="relu")
    assert He().std(layer, nn.ReLU) == pytest.approx(expected.std().item(), rel=0.02)


def test_xavier_and_he_differ_and_xaviers_gain_can_follow() -> None:
    """A sweep over both would be void if Xavier took the ReLU's gain: 0.0592 against 0.0589 (facts.md)."""
    layer = nn.Conv2d(64, 64, 3)
    he, xavier = He().std(layer, nn.ReLU), Xavier().std(layer, nn.ReLU)
    assert he == pytest.approx(math.sqrt(2) * xavier)
    assert Xavier(gain="auto").std(layer, nn.ReLU) == pytest.approx(he)
    torch.manual_seed(5)
    assert xavier == pytest.approx(nn.init.xavier_uniform_(torch.empty(64, 64, 3, 3)).std().item(), rel=0.02)


@pytest.mark.parametrize("init", [He(), Xavier(), He(distribution="uniform"), Xavier(distribution="normal")])
def test_the_weights_have_the_deviation_that_is_said(init: He | Xavier) -> None:
    torch.manual_seed(5)
    layer = nn.ConvTranspose2d(64, 32, 6, 3)
    init(layer, nn.Tanh)
    std = init.std(layer, nn.Tanh)
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert layer.weight.abs().max() > std * (3 if init.distribution == "normal" else 1.7)
    assert init.distribution == "normal" or layer.weight.abs().max() <= math.sqrt(3) * std
    assert layer.bias is not None and not layer.bias.any()


# ---------------------------------------------------------------------------------------------------------
# Activations
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "known"),
    [
        (nn.Identity, 1.0),
        (nn.ReLU, nn.init.calculate_gain("relu")),
        (partial(nn.LeakyReLU, 0.2), nn.init.calculate_gain("leaky_relu", 0.2)),
        (partial(activation.PReLU, slope=0.1, shared=True), nn.init.calculate_gain("leaky_relu", 0.1)),
    ],
)
def test_gain_is_torchs_where_torch_knows_it(factory: Factory, known: float) -> None:
    assert activation.gain(factory) == pytest.approx(known, rel=1e-6)


@pytest.mark.parametrize("factory", [nn.Sigmoid, nn.Tanh, nn.GELU, nn.SiLU, nn.ELU, nn.Mish, nn.Softplus])
def test_gain_undoes_the_activation(factory: Factory) -> None:
    torch.manual_seed(6)
    power = factory()(torch.randn(4_000_000)).square().mean().item()
    assert activation.gain(factory) == pytest.approx(power**-0.5, rel=3e-3)


def test_gain_of_an_activation_that_passes_nothing() -> None:
    with pytest.raises(UserError, match=r"init\.gain=1"):
        activation.gain(partial(nn.Threshold, 100.0, 0.0))


def test_prelu_has_a_slope_a_channel_or_one_for_all() -> None:
    assert [p.shape[0] for p in activation.make(activation.PReLU, 7).parameters()] == [7]
    assert [p.shape[0] for p in activation.make(partial(activation.PReLU, shared=True), 7).parameters()] == [1]


# ---------------------------------------------------------------------------------------------------------
# Dropout, and the order in a block
# ---------------------------------------------------------------------------------------------------------

PLAIN = Recipe(He(), nn.ReLU, Norm(), Dropout(), Deconv())


def block(recipe: Recipe, *, before_last: bool = False) -> list[str]:
    return [name for name, _ in Block(conv(3, 4, 3), 4, recipe, before_last=before_last).named_children()]


def test_the_order_in_a_block() -> None:
    full = Recipe(He(), nn.ReLU, BatchNorm(), Dropout(0.5), Deconv())
    assert block(full) == ["layer", "norm", "activation", "dropout"]
    after = Recipe(He(), nn.ReLU, BatchNorm(place="after"), Dropout(0.5), Deconv())
    assert block(after) == ["layer", "activation", "norm", "dropout"]
    assert block(PLAIN) == block(full.plain()) == ["layer", "activation"]


def test_norm_after_the_activation_is_what_goes_out() -> None:
    x = torch.randn(8, 3, 12, 12)
    places: list[Any] = ["before", "after"]
    for place in places:
        norm = BatchNorm(place=place)
        y = Block(conv(3, 4, 3), 4, Recipe(He(), nn.ReLU, norm, Dropout(), Deconv()))(x)
        zero_mean = torch.allclose(y.mean((0, 2, 3)), torch.zeros(4), atol=1e-5)
        assert zero_mean == (place == "after") == bool((y < 0).any())


def test_dropout_everywhere_or_only_before_the_last_layer() -> None:
    everywhere, last = Dropout(0.2), Dropout(0.2, place="last")
    assert everywhere.layer(before_last=False) is not None and everywhere.layer(before_last=True) is not None
    assert last.layer(before_last=False) is None and last.layer(before_last=True) is not None
    assert Dropout(0.0).layer(before_last=True) is None


@pytest.mark.parametrize("kind", ["element", "channel"])
def test_dropout_of_elements_or_of_channels(kind: Any) -> None:
    torch.manual_seed(7)
    layer = Dropout(0.3, kind).layer(before_last=False)
    assert layer is not None
    kept = layer(torch.ones(64, 32, 8, 8)) != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.03)
    whole = kept.flatten(2).all(2) | ~kept.flatten(2).any(2)
    assert bool(whole.all()) == (kind == "channel")
    assert torch.equal(layer.eval()(torch.ones(1, 2, 3, 3)), torch.ones(1, 2, 3, 3))


# ---------------------------------------------------------------------------------------------------------
# Upsamplers
# ---------------------------------------------------------------------------------------------------------

SIZES = st.integers(1, 7)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 11), st.integers(1, 4), SIZES, SIZES)
def test_a_deconvolution_enlarges_exactly(kernel: int, stride: int, height: int, width: int) -> None:
    if kernel < stride or (stride == 1 and kernel % 2 == 0):
        with pytest.raises(UserError, match="cannot enlarge exactly"):
            Deconv(kernel).layer(2, 3, stride)
    else:
        y = Deconv(kernel).layer(2, 3, stride)(torch.zeros(1, 2, height, width))
        assert y.shape == (1, 3, stride * height, stride * width)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([Deconv(), Deconv(multiple=3), SubPixel(), SubPixel(5), Resize(1, "bilinear"), FixedBicubic()]),
    st.integers(1, 4),
    SIZES,
    SIZES,
)
def test_every_upsampler_enlarges_exactly(upsampler: Upsampler, stride: int, height: int, width: int) -> None:
    y = upsampler.layer(2, 3, stride, kernel=9, padding=4)(torch.zeros(1, 2, height, width))
    assert y.shape == (1, 3, stride * height, stride * width)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_whose_kernel_a_deconvolution_has(stride: int) -> None:
    def kernel_and_padding(layer: nn.Module) -> tuple[int, Any]:
        assert isinstance(layer, nn.ConvTranspose2d)
        return layer.kernel_size[0], layer.padding[0]

    assert kernel_and_padding(Deconv().layer(1, 1, stride))[0] == 2 * stride
    assert kernel_and_padding(Deconv().layer(1, 1, stride, kernel=9, padding=4)) == (9, 4)
    assert kernel_and_padding(Deconv(kernel=8).layer(1, 1, stride, kernel=9, padding=4))[0] == 8
    assert kernel_and_padding(Deconv(multiple=3).layer(1, 1, stride, kernel=9, padding=4))[0] == 3 * stride
    assert kernel_and_padding(Deconv(multiple=3).layer(1, 1, 1, kernel=9, padding=4)) == (9, 4)


def test_bicubic_learns_nothing_but_the_change_of_channels() -> None:
    x = torch.rand(1, 3, 5, 6)
    assert torch.equal(FixedBicubic().layer(3, 3, 2)(x), enlarge(x, 2))
    assert [p.numel() for p in FixedBicubic().layer(3, 5, 2).parameters()] == [15, 5]


# ---------------------------------------------------------------------------------------------------------
# The other rules of initialisation
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 8, 3), nn.ConvTranspose2d(6, 8, 4, 2), nn.Conv2d(2, 40, 3)])
def test_orthogonal_kernels_of_hes_size(layer: Layer) -> None:
    torch.manual_seed(8)
    Orthogonal()(layer, nn.ReLU)
    weight = layer.weight.detach()
    assert weight.square().mean().sqrt().item() == pytest.approx(He().std(layer, nn.ReLU), rel=1e-5)
    by_output = (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
    if by_output.shape[0] > by_output.shape[1]:
        by_output = by_output.T
    products = by_output @ by_output.T
    assert torch.allclose(products, products[0, 0] * torch.eye(len(products)), atol=1e-5)


@given(st.integers(1, 6), st.sampled_from([1, 3, 5]), st.floats(0, 2))
def test_identity_is_what_comes_in_and_a_share_of_hes_rule(channels: int, kernel: int, noise: float) -> None:
    layer = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
    x = torch.rand(2, channels, 5, 4)
    torch.manual_seed(10)
    He()(layer, nn.ReLU)
    expected = x + noise * layer(x)
    torch.manual_seed(10)
    Identity(noise=noise)(layer, nn.ReLU)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 5, 3), nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 4, 2), nn.ConvTranspose2d(4, 4, 3)],
    ids=["channels", "stride", "even", "deconvolution"],
)
def test_identity_is_hes_rule_for_what_cannot_be_the_identity(layer: Layer) -> None:
    torch.manual_seed(10)
    expected = He().weight(layer, nn.ReLU)
    torch.manual_seed(10)
    assert torch.equal(Identity().weight(layer, nn.ReLU), expected)


def test_a_negative_share_beside_the_identity_is_refused() -> None:
    with pytest.raises(UserError, match=r"init\.noise=-1"):
        Identity(noise=-1)


def outputs(network: nn.Module, x: Tensor) -> dict[nn.Module, Tensor]:
    """What each convolution and deconvolution makes of `x`, in evaluation mode."""
    seen: dict[nn.Module, Tensor] = {}
    layers = [layer for layer in network.modules() if isinstance(layer, Layer)]
    hooks = [layer.register_forward_hook(lambda layer, _, y: seen.setdefault(layer, y)) for layer in layers]
    with torch.no_grad():
        network.eval()(x)
    for hook in hooks:
        hook.remove()
    return seen


def test_lsuv_beside_spectral_norm_scales_what_it_can_to_what_really_comes_in() -> None:
    torch.manual_seed(9)
    init = LSUV()
    net = DeconvNet(Recipe(init, nn.Tanh, SpectralNorm(covers="blocks"), Dropout(), Deconv()))
    batch = torch.rand(4, 1, 12, 12)
    init.calibrate(net, lambda: batch, net.last)
    assert outputs(net, batch)[net.last].std().item() == pytest.approx(1, abs=1e-4)  # which has no spectral norm


def test_lsuv_leaves_a_network_whose_every_layer_has_spectral_norm_as_it_is() -> None:
    torch.manual_seed(9)
    net = DeconvNet(Recipe(LSUV(), nn.Tanh, SpectralNorm(), Dropout(), Deconv()))
    batch = torch.rand(4, 1, 12, 12)
    before = net.eval()(batch)
    net.calibrate(lambda: batch)
    torch.testing.assert_close(net.eval()(batch), before, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("norm", [Norm(), BatchNorm(), WeightNorm()])
def test_lsuv_gives_every_layer_unit_variance_on_the_batch(norm: Norm) -> None:
    torch.manual_seed(9)
    init = LSUV(last=Normal())
    net = DeconvNet(Recipe(init, nn.Tanh, norm, Dropout(0.5), Deconv()))
    batch = torch.rand(4, 1, 12, 12)
    before = {layer: y.std().item() for layer, y in outputs(net, batch).items()}
    init.calibrate(net.train(), lambda: batch, net.last)
    assert net.training
    for layer, y in outputs(net, batch).items():
        assert abs(before[layer] - 1) > 0.02
        if layer is net.last:  # another rule's
            assert net.last.weight.std().item() == pytest.approx(0.001, rel=0.2)
        else:
            assert y.std().item() == pytest.approx(1, abs=1e-5)


def test_only_rules_that_need_data_ask_for_it() -> None:
    def never() -> Tensor:
        raise AssertionError("no data is needed")

    He(last=Orthogonal()).calibrate(conv(1, 1, 3), never)
    with pytest.raises(AssertionError, match="no data"):
        He(deconv=LSUV()).calibrate(nn.ConvTranspose2d(1, 1, 3), never)


def test_icnr_starts_as_nearest_neighbour() -> None:
    torch.manual_seed(10)
    layer, x = SubPixelConv2d(5, 3, 3, 2), torch.randn(2, 5, 7, 6)
    ICNR()(layer, nn.ReLU)
    small = F.conv2d(x, layer.weight[::4], padding=1)
    assert torch.allclose(layer(x), F.interpolate(small, scale_factor=2), atol=1e-6)
    assert layer.weight.std().item() == pytest.approx(He().std(layer, nn.ReLU), rel=0.2)


@pytest.mark.parametrize(("kernel", "taps"), [("bilinear", 2), ("bicubic", 4)])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_a_deconvolution_starts_as_interpolation(kernel: Any, taps: int, stride: int, more: int) -> None:
    torch.manual_seed(11)
    layer = Deconv(taps * stride + more).layer(4, 4, stride).double()
    He(deconv=Interpolation(kernel=kernel))(layer, nn.ReLU)
    x = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    linear = partial(F.interpolate, scale_factor=stride, mode="bilinear")
    expected = linear(x) if kernel == "bilinear" else enlarge(x, stride)
    inside = (..., slice(3 * stride, -3 * stride), slice(3 * stride, -3 * stride))
    assert torch.allclose(layer(x)[inside], expected[inside], atol=1e-12)


@pytest.mark.parametrize(("into", "out"), [(56, 1), (6, 3), (3, 6), (5, 2)])
def test_interpolation_between_other_numbers_of_channels_keeps_the_mean(into: int, out: int) -> None:
    layer = Deconv(9).layer(into, out, 2)
    Interpolation()(layer, nn.ReLU)
    assert torch.allclose(layer(torch.full((1, into, 9, 9), 0.7))[..., 6:-6, 6:-6], torch.tensor(0.7))
    assert isinstance(layer, Deconv2d)
    assert layer.weight.flatten(1).any(1).all() and layer.weight.transpose(0, 1).flatten(1).any(1).all()


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(4, 8, 4, 2)])
def test_torchs_rule_is_what_torch_does(layer: Layer) -> None:
    torch.manual_seed(12)
    layer.reset_parameters()
    expected = [p.detach().clone() for p in layer.parameters()]
    torch.manual_seed(12)
    Torch()(layer, nn.ReLU)
    assert all(torch.allclose(p, q, atol=1e-7) for p, q in zip(layer.parameters(), expected, strict=True))


def test_convolutions_deconvolutions_and_the_last_layer_can_follow_other_rules() -> None:
    torch.manual_seed(13)
    first, middle, last = nn.Conv2d(32, 32, 3), nn.ConvTranspose2d(32, 32, 4, 2), nn.ConvTranspose2d(32, 32, 4, 2)
    network = nn.Sequential(first, middle, last)
    stds = lambda: [round(layer.weight.std().item(), 4) for layer in (first, middle, last)]  # noqa: E731
    Normal(std=1, deconv=Normal(std=2), last=Normal(std=3))(network, nn.ReLU, last)
    assert stds() == pytest.approx([1, 2, 3], rel=0.05)
    Normal(std=1, deconv=Normal(std=2))(network, nn.ReLU, last)
    assert stds() == pytest.approx([1, 2, 2], rel=0.05)
    # A rule that is set for deconvolutions may itself be made of several, as a config file's is.
    Normal(std=1, deconv=Normal(std=5, deconv=Normal(std=2)), last=Normal(std=3))(network, nn.ReLU, last)
    assert stds() == pytest.approx([1, 2, 3], rel=0.05)


# ---------------------------------------------------------------------------------------------------------
# Norms
# ---------------------------------------------------------------------------------------------------------


def test_layer_norm_sees_one_pixel() -> None:
    x = torch.randn(2, 6, 5, 4)
    layer = ChannelNorm(6)
    assert torch.allclose(layer(x).mean(1), torch.zeros(2, 5, 4), atol=1e-6)
    assert torch.allclose(layer(x).var(1, correction=0), torch.ones(2, 5, 4), atol=1e-3)
    assert torch.allclose(layer(x)[..., 2:, 1:], layer(x[..., 2:, 1:]), atol=1e-6)


@pytest.mark.parametrize(("channels", "groups"), [(56, 8), (12, 4), (16, 8), (7, 1)])
def test_group_norm_takes_a_number_of_groups_that_divides(channels: int, groups: int) -> None:
    layer = GroupNorm().layer(channels)
    assert isinstance(layer, nn.GroupNorm) and layer.num_groups == groups


@pytest.mark.parametrize("norm", ["WeightNorm", "SpectralNorm"])
@pytest.mark.parametrize(
    "choices",
    [
        *((f"generator={file.stem}",) for file in sorted((CONF / "generator").glob("*.yaml"))),
        *(("generator=deconvnet", f"upsampler={file.stem}") for file in (CONF / "upsampler").glob("*.yaml")),
    ],
    ids=" ".join,
)
def test_norms_of_weights_reach_every_layer(norm: str, choices: tuple[str, ...]) -> None:
    node = spec(*choices)
    rules = {"norm": {"_target_": f"upsweep.blocks.norm.{norm}"}, "init": {"_target_": "upsweep.blocks.init.Xavier"}}
    narrow = {"width": 8} if "width" in node else {}
    net = checkpoints.build({**node, **narrow, "recipe": {**node["recipe"], **rules}})
    layers = [layer for layer in net.modules() if isinstance(layer, Layer)]
    assert layers or choices == ("generator=bicubic",)
    assert all(is_parametrized(layer, "weight") for layer in layers)
    for layer in layers:
        bound = math.sqrt(3) * Xavier().std(layer, nn.ReLU)  # the rule's, of the weights that the two make up
        by_output = (layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight).flatten(1)
        if norm == "WeightNorm":
            assert 0.5 * bound < layer.weight.abs().max().item() <= bound * (1 + 1e-5)
        else:
            assert torch.linalg.matrix_norm(by_output, 2).item() == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("norm", [WeightNorm(covers="blocks"), SpectralNorm(covers="blocks")])
def test_norms_of_weights_can_be_left_to_the_layers_of_blocks(norm: Norm) -> None:
    """As checkpoints of format 1 have it: a block without a norm, such as an output, is no such block."""
    recipe = Recipe(He(), nn.ReLU, norm, Dropout(), Deconv())
    reached = {name for name, layer in DeconvNet(recipe, depth=1).named_modules() if is_parametrized(layer)}
    assert reached == {"convs.0.layer", "upsampler.0.layer"}
    reached = {name for name, layer in ArticleNet(recipe).named_modules() if is_parametrized(layer)}
    assert reached == {"conv.layer"}


@pytest.mark.parametrize("layer", [nn.Conv2d(6, 4, 3), Deconv2d(6, 4, 5, 2), SubPixelConv2d(6, 1, 3, 2)])
def test_weight_norm_splits_the_weights_that_the_rule_chose(layer: Layer) -> None:
    torch.manual_seed(14)
    WeightNorm().parametrise(layer)
    He(distribution="uniform")(layer, nn.ReLU)
    torch.manual_seed(14)
    expected = He(distribution="uniform").weight(layer, nn.ReLU)
    assert torch.allclose(layer.weight, expected, atol=1e-6)
    lengths = dict(layer.named_parameters())["parametrizations.weight.original0"]
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    assert lengths.numel() == 4
    assert torch.allclose(lengths.flatten(), expected.transpose(0, axis).flatten(1).norm(dim=1), atol=1e-6)


@pytest.mark.parametrize("make", [partial(nn.Conv2d, 6, 4, 3), partial(Deconv2d, 6, 4, 5, 2)])
@pytest.mark.parametrize("init", [He(), Normal(std=5.0), Xavier(gain=0.1)])
def test_spectral_norm_knows_the_weights_that_the_rule_chose(make: Callable[[], Layer], init: Init) -> None:
    torch.manual_seed(15)
    layer = make()
    SpectralNorm().parametrise(layer)
    init(layer.eval(), nn.ReLU)
    by_output = (layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight).flatten(1)
    assert torch.linalg.matrix_norm(by_output, 2).item() == pytest.approx(1, rel=0.05)
    assert not layer.training


# ---------------------------------------------------------------------------------------------------------
# A deconvolution as its equal sub-pixel convolution
# ---------------------------------------------------------------------------------------------------------

PAIR = lambda low, high: st.tuples(st.integers(low, high), st.integers(low, high))  # noqa: E731


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 5),
    st.integers(0, 3),
    PAIR(1, 6),
    PAIR(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.integers(1, 3),
)
def test_both_forms_are_equal(
    kernel: int,
    stride: int,
    padding: int,
    more: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    groups: int,
    biased: bool,
    block: int,
) -> None:
    block = block if groups == 1 else 1
    more %= stride
    assume((min(size) - 1) * stride - 2 * padding + kernel + more > 0)
    torch.manual_seed(16)
    x = torch.randn(2, channels[0] * groups, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(channels[0] * groups, channels[1], kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(channels[1] * groups, dtype=torch.float64) if biased else None
    expected = F.conv_transpose2d(x, weight, bias, stride, padding, more, groups)
    found = deconv_as_subpixel(x, weight, bias, stride, padding, more, groups, block)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)
    noise = torch.randn_like(expected)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight), noise) for y in (found, expected)), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_both_forms_of_fsrcnns_deconvolution_are_equal_in_float32(stride: int, layout: torch.memory_format) -> None:
    torch.manual_seed(17)
    layer = Deconv2d(56, 1, 9, stride, 4, stride - 1, form="subpixel")
    He()(layer, nn.ReLU)
    twin = nn.ConvTranspose2d(56, 1, 9, stride, 4, stride - 1)
    twin.load_state_dict(layer.state_dict())
    x = torch.rand(2, 56, 13, 12).contiguous(memory_format=layout)
    assert torch.allclose(layer(x), twin(x), rtol=0, atol=1e-5)
    assert torch.equal(layer(x, output_size=twin(x).shape[-2:]), twin(x))


def test_the_form_changes_neither_parameters_nor_state() -> None:
    nets: list[Upscaler] = []
    forms: list[Form] = ["auto", "deconv", "subpixel"]
    for form in forms:
        torch.manual_seed(18)
        nets.append(DeconvNet(Recipe(He(), nn.ReLU, WeightNorm(), Dropout(), Deconv(form=form)), scale=4, channels=3))
    x = torch.rand(1, 3, 7, 9)
    for net in nets[1:]:
        assert net.state_dict().keys() == nets[0].state_dict().keys()
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), nets[0].parameters(), strict=True))
        assert torch.allclose(net(x), nets[0](x), atol=1e-5)


def ran_as(layer: nn.Module, x: Tensor) -> Form:
    with torch.profiler.profile() as profile:
        layer(x)
    return "subpixel" if any("pixel_shuffle" in event.key for event in profile.key_averages()) else "deconv"


def test_the_form_that_is_chosen_is_the_one_that_runs() -> None:
    few, many, x = Deconv2d(8, 1, 4, 2, 1), Deconv2d(8, 16, 4, 2, 1), torch.rand(1, 8, 5, 5)
    assert (ran_as(few, x), ran_as(many, x)) == ("subpixel", "deconv")
    forms: list[Form] = ["deconv", "subpixel"]
    for form in forms:
        run_as(nn.Sequential(few, nn.Sequential(many)), form)
        assert (ran_as(few, x), ran_as(many, x)) == (form, form)


def test_blocks_are_for_inference_with_few_channels() -> None:
    luma, rgb, short = Deconv2d(8, 1, 9, 2, 4, 1), Deconv2d(8, 3, 9, 2, 4, 1), Deconv2d(8, 1, 4, 2, 1)
    x = torch.rand(1, 8, 5, 6)
    assert not luma.in_blocks(x)
    with torch.no_grad():
        assert luma.in_blocks(x) and not rgb.in_blocks(x) and not short.in_blocks(x)
        expected = nn.functional.conv_transpose2d(x, luma.weight, luma.bias, 2, 4, 1)
        assert torch.allclose(luma(x), expected, rtol=0, atol=1e-6)
        size = {2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
        other = torch.rand(1, 8, 7, 5)
        forms: list[Form] = ["auto", "blocks"]
        for form in forms:
            run_as(luma, form)
            program = torch.export.export(luma, (x,), dynamic_shapes=(size,), strict=False)
            assert torch.allclose(program.module()(other), luma(other), rtol=0, atol=1e-6)
            assert torch.allclose(torch.jit.trace(luma, x)(other), luma(other), rtol=0, atol=1e-6)
        run_as(luma, "subpixel")
        assert not luma.in_blocks(x)
    run_as(luma, "blocks")  # asked for, it is so everywhere
    assert luma.in_blocks(x) and torch.allclose(luma(x), expected, rtol=0, atol=1e-6)


def test_the_subpixel_form_is_compiled_whole_and_exported_for_any_size() -> None:
    layer = Deconv2d(4, 1, 9, 3, 4, 2, form="subpixel").eval()
    size = {2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    program = torch.export.export(layer, (torch.rand(1, 4, 8, 9),), dynamic_shapes=(size,), strict=False)
    x = torch.rand(1, 4, 11, 5)
    assert torch.allclose(program.module()(x), layer(x), atol=1e-6)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)


# ---------------------------------------------------------------------------------------------------------
# The checkerboard
# ---------------------------------------------------------------------------------------------------------


def on_constant(layer: nn.Module, stride: int, channels: int = 1) -> float:
    return checkerboard(response(layer, channels), stride)


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_constant_weights_make_a_checkerboard_only_where_the_overlap_is_uneven(stride: int) -> None:
    """Odena et al. 2016; FSRCNN's 9x9 has it at x2 and x4, not at x3."""
    for kernel in (8, 9):
        layer = Deconv(kernel).layer(1, 1, stride)
        nn.init.constant_(dict(layer.named_parameters())["weight"], 1 / kernel**2)
        nn.init.zeros_(dict(layer.named_parameters())["bias"])
        assert (on_constant(layer, stride) > 0.005) == bool(kernel % stride)


def test_the_checkerboard_by_hand() -> None:
    """k = 9, s = 2, weights 1: an output pixel sums 4 or 5 taps an axis, so 16, 20, 20 or 25 times the value."""
    layer = Deconv(9).layer(1, 1, 2)
    nn.init.ones_(dict(layer.named_parameters())["weight"])
    nn.init.zeros_(dict(layer.named_parameters())["bias"])
    phases = torch.tensor([16.0, 20.0, 20.0, 25.0]) * 0.5
    assert on_constant(layer, 2) == pytest.approx(phases.std(correction=0).item(), rel=1e-5)
    picture = portrait(response(layer, 1), 2)
    assert picture.shape == (128, 128, 1) and picture.max() - picture.min() > 100


STARTS: dict[str, tuple[Init, Upsampler]] = {
    "icnr": (ICNR(), SubPixel()),
    "bilinear": (He(deconv=Interpolation()), Deconv()),
    "bilinear, 9x9": (He(deconv=Interpolation()), Deconv(9)),
    "bicubic": (He(deconv=Interpolation(kernel="bicubic")), Deconv(multiple=4)),
    "bicubic, 9x9": (He(deconv=Interpolation(kernel="bicubic")), Deconv(9)),
}


@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("name", STARTS)
def test_no_checkerboard_at_the_start(name: str, stride: int) -> None:
    torch.manual_seed(19)
    init, upsampler = STARTS[name]
    layer = upsampler.layer(3, 3, stride)
    init(layer, nn.ReLU)
    assert on_constant(layer, stride, 3) < 1e-6
    assert portrait(response(layer, 3), stride).std() < 1
    He()(layer, nn.ReLU)
    assert on_constant(layer, stride, 3) > 0.05  # random weights have it whatever the kernel


def test_a_rule_that_finds_no_layer_says_so() -> None:
    rules: dict[str, Init] = {"icnr": ICNR(), "deconv": He(deconv=Interpolation()), "he": He()}
    assert FSRCNN(Recipe(Identity(), nn.ReLU, Norm(), Dropout(), Deconv())).unused() == []
    (sentence,) = FSRCNN(Recipe(Identity(), nn.ReLU, Norm(), Dropout(), Deconv()), m=0).unused()
    assert "init=identity" in sentence
    for upsampler, void in ((Deconv(), ["init=icnr"]), (SubPixel(), ["init.deconv"]), (Resize(), [*rules][:2])):
        said = [
            s
            for rule in rules.values()
            for s in DeconvNet(Recipe(rule, nn.ReLU, Norm(), Dropout(), upsampler)).unused()
        ]
        assert len(said) == len(void) and all(name in sentence for name, sentence in zip(void, said, strict=True))


def test_no_checkerboard_at_the_start_of_a_whole_generator() -> None:
    torch.manual_seed(20)
    recipe = Recipe(He(deconv=Interpolation()), nn.ReLU, Norm(), Dropout(), Deconv())
    assert on_constant(DeconvNet(recipe, scale=4), 4) < 1e-6
    for centre in (0.0, 0.5):  # of which a constant image of 0.5 would show nothing
        assert on_constant(DeconvNet(replace(recipe, init=He()), scale=4, centre=centre), 4) > 0.01


@pytest.mark.parametrize(
    "name", sorted(file.stem for file in (CONF / "generator").glob("*.yaml") if "upscalers" in file.read_text())
)
@pytest.mark.parametrize("choices", [("init=icnr", "upsampler=subpixel"), ("init=bilinear", "upsampler=deconv")])
def test_no_border_of_a_deep_generator_is_taken_for_a_checkerboard(name: str, choices: tuple[str, str]) -> None:
    torch.manual_seed(20)
    node = spec(f"generator={name}", *choices)
    net = checkpoints.as_upscaler(checkpoints.build({**node, **({"width": 8} if "width" in node else {})}), name)
    image = response(net, net.channels)
    assert checkerboard(image, net.scale) < 1e-6 * max(1.0, image.abs().max().item())


# ---------------------------------------------------------------------------------------------------------
# Whatever the config offers: in a generator, in training, in a checkpoint
# ---------------------------------------------------------------------------------------------------------

OFFERED = [
    f"{group}={file.stem}"
    for group in ("init", "activation", "norm", "dropout", "upsampler")
    for file in sorted((CONF / group).glob("*.yaml"))
]


@cache
def spec(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", overrides=["++data.size=28", "++data.channels=1", *overrides])
    node = OmegaConf.to_container(config.generator, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


@pytest.mark.parametrize("choice", OFFERED)
def test_every_choice_builds_trains_and_survives_a_checkpoint(choice: str, tmp_path: Path) -> None:
    torch.manual_seed(21)
    chosen = spec("generator=deconvnet", choice)
    net = checkpoints.build(chosen)
    x = torch.rand(2, 1, 9, 7)
    y = net(x)
    assert y.shape == (2, 1, 18, 14) and y.isfinite().all()
    y.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    torch.optim.SGD(net.parameters(), 0.01).step()
    net(x)

    path = tmp_path / "made.ckpt"
    weights = {f"generator.{name}": value for name, value in net.state_dict().items()}
    checkpoints.save({"state_dict": weights, checkpoints.KEY: checkpoints.describe(chosen)}, path)
    assert torch.equal(checkpoints.load_generator(path)(x), net.eval()(x))


def test_dcgan_starts_all_at_0_02_and_norms_around_1() -> None:
    """Radford et al. 2016, section 4, and `weights_init` of PyTorch's example."""
    torch.manual_seed(22)
    net = checkpoints.build(spec("generator=dcgan", "generator.width=64"))
    layers = [m for m in net.modules() if isinstance(m, nn.ConvTranspose2d)]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(layers) == 3 and len(norms) == 2
    for weight, mean in [
        *((layer.weight, 0.0) for layer in layers),
        (torch.cat([norm.weight for norm in norms]), 1.0),
    ]:
        assert weight.mean().item() == pytest.approx(mean, abs=4 * 0.02 / math.sqrt(weight.numel()))
        assert weight.std().item() == pytest.approx(0.02, rel=4 / math.sqrt(2 * weight.numel()))
    assert not any(bool(bias.any()) for key, bias in net.named_parameters() if key.endswith("bias"))


def test_norms_are_left_as_the_network_made_them_by_every_other_rule_and_no_number_is_drawn_for_them() -> None:
    def made(*choices: str) -> dict[str, Tensor]:
        torch.manual_seed(23)
        net = checkpoints.build(spec("generator=srresnet", "generator.width=8", "generator.depth=2", *choices))
        return dict(net.named_parameters())

    rules = [file.stem for file in (CONF / "init").glob("*.yaml") if file.stem not in ("dcgan", "bilinear", "bicubic")]
    for rule in rules:
        gains = {key: weight for key, weight in made(f"init={rule}").items() if key.endswith("norm.weight")}
        assert gains and all(torch.equal(w, torch.full_like(w, w[0].item())) for w in gains.values()), rule
    before, after = made("init=normal", "init.std=0.02"), made("init=dcgan")
    last = [key for key in before if key.endswith("body.1.norm.weight")]  # SRResNet starts these at 0.01
    assert last and all(0 < (after[key] / before[key] - 1).abs().max() < 0.1 for key in last)
    assert all(torch.equal(before[key], after[key]) for key in before if not key.endswith("norm.weight"))


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_block_before_its_layer_has_the_same_parts_in_the_order_of_a_residual_branch(
    place: Literal["before", "after"],
) -> None:
    recipe = Recipe(He(), nn.ReLU, BatchNorm(place), Dropout(0.5), Deconv())
    ahead = ["norm", "activation"] if place == "before" else ["activation", "norm"]
    block = PreBlock(conv(3, 5, 3), 3, recipe)
    assert [name for name, _ in block.named_children()] == [*ahead, "dropout", "layer"]
    assert block(torch.rand(2, 3, 4, 4)).shape == (2, 5, 4, 4)
    named = [name for name, _ in Block(conv(3, 5, 3), 5, recipe).named_children()]
    assert named == ["layer", *ahead, "dropout"]


def test_rules_for_kinds_of_layers_are_chosen_by_name() -> None:
    """As conf/init/he_small_last.yaml does it, and on the command line."""

    def kinds(*overrides: str) -> list[str]:
        node = spec(*overrides)["recipe"]["init"]
        nodes = node, node.get("deconv"), node.get("last")
        return [n["_target_"].rpartition(".")[2] if n else "-" for n in nodes]

    assert kinds("generator=fsrcnn") == ["He", "-", "Normal"]
    assert kinds("generator=fsrcnn", "init=he") == ["He", "-", "-"]
    assert kinds("init=xavier", "+init@init.deconv=orthogonal", "+init@init.last=normal") == [
        "Xavier",
        "Orthogonal",
        "Normal",
    ]
    changed = spec("generator=fsrcnn", "init.fan=torch", "init.last.std=0.5")["recipe"]["init"]
    assert (changed["fan"], changed["last"]["std"]) == ("torch", 0.5)


# ---------------------------------------------------------------------------------------------------------
# What cannot be
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: He(fan="true"), r"init\.fan=true must be one of effective, torch"),  # type: ignore[arg-type]
        (lambda: He(gain=0), r"init\.gain=0"),
        (lambda: He(gain="relu"), r"init\.gain=relu"),  # type: ignore[arg-type]
        (lambda: He(mode="fan"), r"init\.mode=fan"),  # type: ignore[arg-type]
        (lambda: Xavier(distribution="gamma"), r"init\.distribution=gamma"),  # type: ignore[arg-type]
        (lambda: Norm("around"), r"norm\.place=around"),  # type: ignore[arg-type]
        (lambda: Dropout(1.0), r"dropout\.p=1\.0"),
        (lambda: replace(PLAIN, activation=nn.SiLU()), r"activation=SiLU is made already: say `_partial_: true`"),
        (lambda: Dropout(0.1, "row"), r"dropout\.kind=row"),  # type: ignore[arg-type]
        (lambda: Resize(mode="cubic"), r"upsampler\.mode=cubic"),  # type: ignore[arg-type]
        (lambda: conv(1, 1, 4), "odd kernel, not 4"),
        (lambda: SubPixel(2).layer(1, 1, 2), "odd kernel, not 2"),
        (lambda: Normal(std=-1), r"init\.std=-1"),
        (lambda: Normal(norm_std=-1), r"init\.norm_std=-1"),
        (lambda: Interpolation(kernel="cubic"), r"init\.kernel=cubic must be one of bilinear"),  # type: ignore[arg-type]
        (lambda: Interpolation()(conv(1, 1, 3), nn.ReLU), r"init\.deconv"),
        (
            lambda: LSUV().calibrate(conv(1, 1, 3), lambda: torch.zeros(1, 1, 8, 8)),
            r"init=lsuv cannot scale a Conv2d of 1 to 1 channels",
        ),
        (lambda: GroupNorm(groups=0), r"norm\.groups=0"),
        (lambda: SpectralNorm(iterations=0), r"norm\.iterations=0"),
        (lambda: WeightNorm(covers="last"), r"norm\.covers=last"),  # type: ignore[arg-type]
        (lambda: Deconv(form="fast"), r"upsampler\.form=fast must be one of auto"),  # type: ignore[arg-type]
        (lambda: Deconv(kernel=8, multiple=2), r"leave one of them empty"),
        (lambda: Deconv(kernel=8, padding=0).layer(1, 1, 2), r"of kernel 8 and padding 0"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
