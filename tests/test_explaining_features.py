"""The features of layers: dead channels and duplicates are told exactly, and a look leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from tests.small_job import NET
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from upsweep.common.errors import UserError
from upsweep.explaining.case import Square, case
from upsweep.explaining.features import (
    Features,
    dead_channels,
    duplicates,
    features,
    layers_of,
    look_through,
    shares_of,
    shown_of,
    stretched,
    watched,
)
from upsweep.imaging.resize import shrink
from upsweep.networks import checkpoints
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage

WHOLE = (0.0, 1.0, 0.0, 1.0)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def network() -> Upscaler:
    torch.manual_seed(0)
    built = checkpoints.build({**NET, "scale": 2, "channels": 1, "width": 8}).eval()
    assert isinstance(built, Upscaler)
    return built


def test_nothing_is_marked_in_random_channels() -> None:
    channels = noise(16, 20, 20)
    assert not dead_channels(channels).any() and (duplicates(channels) == -1).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.5, 98765.4321])
def test_a_constant_channel_is_dead_whatever_its_value(value: float) -> None:
    channels = noise(8, 21, 23)
    channels[3] = value
    assert dead_channels(channels).nonzero().flatten().tolist() == [3]
    channels[5] = value
    assert (duplicates(channels) == -1).all()  # the dead repeat nothing, not even each other


def test_what_is_left_of_a_channel_by_rounding_is_dead_and_repeats_nothing() -> None:
    channels = noise(8, 20, 20)
    channels[3] = 1e-8 * channels[1]
    assert dead_channels(channels).nonzero().flatten().tolist() == [3]
    assert (duplicates(channels) == -1).all()


def test_a_faint_channel_is_not_dead() -> None:
    channels = noise(8, 20, 20)
    channels[3] *= 1e-4
    assert not dead_channels(channels).any()


@pytest.mark.parametrize(("factor", "shift"), [(1, 0), (-1, 0), (1e-3, 5), (-20, -3)])
def test_a_copy_up_to_a_factor_and_a_shift_is_told_with_the_first_one(factor: float, shift: float) -> None:
    channels = noise(8, 20, 20)
    channels[4] = factor * channels[1] + shift
    channels[6] = channels[4]
    assert duplicates(channels).tolist() == [-1, -1, -1, -1, 1, -1, 1, -1]


@pytest.mark.parametrize(("cosine", "told"), [(0.991, 0), (-0.991, 0), (0.989, -1)])
def test_channels_are_alike_from_the_cosine_on(cosine: float, told: int) -> None:
    a, b = torch.linalg.qr(noise(400, 2) - noise(400, 2).mean(0))[0].T
    channels = torch.stack([a, cosine * a + (1 - cosine**2) ** 0.5 * b]).view(2, 20, 20)
    assert duplicates(channels)[1] == told


def test_planted_channels_of_a_network_are_found_and_counted() -> None:
    net, lr = network(), noise(1, 1, 24, 24)
    layers = look_through(net, lr, WHOLE, Features())
    assert shares_of(layers) == {"dead": 0, "duplicates": 0}
    block = layers_of(net)[layers[0].name]
    convolution = next(module for module in block.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        convolution.weight[2], convolution.weight[5] = 0, 2 * convolution.weight[1]
    first = look_through(net, lr, WHOLE, Features())[0]
    assert first.dead.nonzero().flatten().tolist() == [2]
    assert {int(i): int(first.repeats[i]) for i in (first.repeats >= 0).nonzero()} == {5: 1}
    total = sum(len(layer.dead) for layer in layers)
    assert shares_of([first, *layers[1:]]) == {"dead": 100 / total, "duplicates": 100 / total}


def test_what_is_shown_is_cut_out_of_the_whole_and_holds_what_is_marked() -> None:
    x = noise(1, 6, 20, 40)
    x[:, 4] = 1
    (layer,) = look_through(nn.Sequential(nn.Identity()), x, (0.25, 0.75, 0.5, 0.6), Features(channels=3))
    assert layer.shown == [0, 1, 4]
    torch.testing.assert_close(layer.crop, stretched(x[0, [0, 1, 4], 5:15, 20:24]))
    assert shown_of(torch.tensor([False, True, False, True]), torch.full((4,), -1), 1) == [1]


def test_a_tile_goes_from_black_to_white_and_a_few_odd_pixels_do_not_darken_it() -> None:
    even = torch.linspace(0, 1, 400).view(1, 20, 20)
    odd = even.clone()
    odd[0, 0, 0] = 1000
    torch.testing.assert_close(stretched(odd)[0, 5:15], stretched(even)[0, 5:15], atol=0.01, rtol=0)
    spot = torch.zeros(1, 20, 20)
    spot[0, 3, 3] = -7
    torch.testing.assert_close(stretched(spot), 1 + spot / 7)
    assert (stretched(torch.full((1, 5, 5), 3.0)) == 0.85).all()


class Stranger(nn.Module):
    """No blocks; one layer twice; weights that a parametrisation hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(1, 4, 3)), nn.ReLU(inplace=True))
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pool(self.again(self.again(self.first(x))))
        return y


def test_a_network_without_blocks_shows_its_smallest_modules_each_time_they_run() -> None:
    found = look_through(Stranger(), noise(1, 1, 12, 12), WHOLE, Features())
    assert [layer.name for layer in found] == ["first.0", "first.1", "again", "again (2)"]


def test_a_look_leaves_no_hooks_and_no_trace_also_on_errors() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    look_through(net, noise(1, 1, 12, 12), WHOLE, Features())

    def fail(name: str, output: Tensor) -> None:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError), watched(net, fail):
        net(noise(1, 1, 12, 12))
    assert not any(module._forward_hooks for module in net.modules()) and not net.training
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("count", [1, 3])
def test_the_section_has_a_block_of_rows_for_each_network(count: int) -> None:
    hr = noise(1, 1, 96, 96)
    image = EvalImage("noise", shrink(hr, 2), hr, None, None)
    cases = [case(f"net {i}", network(), image) for i in range(count)]
    section = features(cases, Square(90, 90, 6), Features(crop=16))
    assert [*section.figures] == [case.name for case in cases] and len(section.said) == count
    assert section.picture.dtype == np.uint8 and section.picture.shape[0] > 100 * count
    assert section.said[0].startswith("net 0: of ") and "channels in" in section.said[0]


def test_a_network_that_sees_an_image_turned_too_shows_its_layers_before_the_window_and_counts_them_once() -> None:
    hr = noise(1, 1, 64, 96)
    image, net = EvalImage("noise", shrink(hr, 2), hr, None, None), network()
    sections = []
    for views in (1, 3):
        net.views = views
        sections.append(features([case("net", net, image)], Square(10, 60, 8), Features(crop=12)))
    once, turned = sections
    assert turned.said == once.said and turned.figures == once.figures
    np.testing.assert_array_equal(turned.picture, once.picture)


def test_bicubic_has_no_layers_and_this_is_said() -> None:
    hr = noise(1, 1, 32, 32)
    one = case("bicubic", Bicubic(scale=2), EvalImage("noise", shrink(hr, 2), hr, None, None))
    section = features([one], Square(0, 0, 8), Features())
    assert section.figures == {} and "no layer has features" in section.said[0]


def test_what_is_of_no_use_is_said_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"features\.crop=0 must be at least 1"):
        Features(crop=0)
    with pytest.raises(UserError, match=r"features\.alike=1\.5 must be a cosine"):
        Features(alike=1.5)
