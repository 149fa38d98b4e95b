"""Promises of `upsweep.explaining.fields`: known fields of known layers, and gradients in closed form."""

from collections.abc import Sequence
from math import ceil, erf, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.test_wrappers import Pooling, build
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.explaining.case import case
from upsweep.explaining.fields import (
    FIGURES,
    _places,
    effective_field,
    effective_side,
    fields,
    share_within,
    surroundings,
    theoretical_field,
)
from upsweep.imaging.resize import cubic, shrink
from upsweep.networks.upscalers import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage

Layer = tuple[Any, ...]
pytestmark = pytest.mark.usefixtures("one_thread")


class Linear(Upscaler):
    """One convolution to the phases of each output channel, with given weights (C s^2, C, k, k), and no bias."""

    def __init__(self, weight: Tensor, scale: int) -> None:
        super().__init__(scale, weight.shape[1])
        self.weight = nn.Parameter(weight)

    def body(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(nn.functional.conv2d(x, self.weight, padding="same"), self.scale)


def pictured(channels: int, height: int, width: int, scale: int = 2) -> EvalImage:
    """An image with structure, and its LR."""
    random = torch.Generator().manual_seed(3)
    hr = torch.rand(1, channels, scale * height, scale * width, generator=random)
    return EvalImage("noise", shrink(hr, scale), hr, None, None)


# The theoretical field


def seen(layers: Sequence[Layer], scale: int) -> int:
    """LR pixels on which outputs 0 to scale - 1 of an axis depend, from the layers' kernels and strides, by hand."""
    first, last = 0, scale - 1
    for kind, *sizes in reversed(layers):
        if kind == "conv":
            first, last = first - sizes[0] // 2, last + sizes[0] // 2
        elif kind == "deconv":  # input i makes outputs s i - p to s i - p + k - 1
            kernel, stride, padding = sizes
            first, last = -((kernel - 1 - padding - first) // stride), (last + padding) // stride
        elif kind == "subpixel":
            first, last = first // sizes[0], last // sizes[0]
        else:  # bicubic
            first, last = first // sizes[0] - 2, last // sizes[0] + 2
    return last - first + 1


FSRCNN = [("conv", 5), *[("conv", 3)] * 4]
KNOWN = [
    ("fsrcnn", 2, {}, [*FSRCNN, ("deconv", 9, 2, 4)], 17),
    ("fsrcnn", 3, {}, [*FSRCNN, ("deconv", 9, 3, 4)], 16),
    ("fsrcnn", 4, {}, [*FSRCNN, ("deconv", 9, 4, 4)], 15),
    ("espcn", 3, {}, [("conv", 5), ("conv", 3), ("conv", 3), ("subpixel", 3)], 9),
    ("srcnn", 2, {}, [("bicubic", 2), ("conv", 9), ("conv", 5), ("conv", 5)], 13),
    (
        "vdsr",
        2,
        {},
        [("bicubic", 2), *[("conv", 3)] * 20],
        25,
    ),  # the paper's 41 enlarged pixels: 10 LR to a side, and 2
    ("bicubic", 2, {}, [("bicubic", 2)], 5),
    ("deconvnet", 2, {"depth": 1, "skip": "none"}, [("conv", 3), ("deconv", 4, 2, 1), ("conv", 3)], 5),
    ("deconvnet", 2, {"depth": 4}, [*[("conv", 3)] * 4, ("deconv", 4, 2, 1), ("conv", 3)], 11),
]


@pytest.mark.parametrize(("name", "scale", "arguments", "layers", "side"), KNOWN)
def test_the_theoretical_field_is_that_of_the_papers_layers(
    name: str, scale: int, arguments: dict[str, Any], layers: list[Layer], side: int
) -> None:
    assert seen(layers, scale) == side, "the two ways to know it differ"
    assert theoretical_field(build(name, scale=scale, **arguments)) == side


def test_the_bicubic_skip_counts() -> None:
    narrow = {"depth": 1, "kernel": 1}
    assert theoretical_field(build("deconvnet", skip="none", **narrow)) == 3
    assert theoretical_field(build("deconvnet", skip="bicubic", **narrow)) == 5


@pytest.mark.parametrize("network", [build("deconvnet", "norm=instance"), Pooling(1)], ids=["instance", "undeclared"])
def test_no_end_is_none_and_not_a_number(network: Upscaler) -> None:
    assert theoretical_field(network) is None and surroundings(network) is None


def test_a_pooling_networks_field_is_whole_cells_and_holds_its_gradient() -> None:
    pooling = build("unet", "norm=none", depth=2).double()
    side = theoretical_field(pooling)
    assert side is not None and side % pooling.stride == 0 and pooling.stride == 2
    field = effective_field(pooling, torch.rand(1, 1, 60, 60, dtype=torch.float64))
    assert effective_side(field, 1 - 1e-12) <= side + pooling.stride


# The effective field


@pytest.mark.parametrize(("channels", "scale", "kernel"), [(1, 2, 3), (3, 2, 5), (1, 3, 7), (3, 3, 3)])
def test_of_a_linear_network_it_is_the_size_of_its_kernel(channels: int, scale: int, kernel: int) -> None:
    torch.manual_seed(1)
    weight = torch.randn(channels * scale**2, channels, kernel, kernel, dtype=torch.float64)
    field = effective_field(Linear(weight, scale), torch.rand(1, channels, 30, 40, dtype=torch.float64))
    expected = weight.abs().sum((0, 1))
    assert torch.allclose(field, expected / expected.sum(), atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_of_bicubic_it_is_keys_kernel(scale: int) -> None:
    field = effective_field(build("bicubic", scale=scale), torch.rand(1, 3, 20, 20, dtype=torch.float64))
    places = (np.arange(scale) + 0.5) / scale - 0.5
    axis = np.abs(cubic(places[:, None] - np.arange(-2, 3))).sum(0)
    expected = np.outer(axis, axis) / axis.sum() ** 2
    np.testing.assert_allclose(field.numpy(), expected, atol=1e-12)


class Boxes(Upscaler):
    """n means over 3x3 pixels, then each pixel doubled."""

    def __init__(self, n: int) -> None:
        super().__init__(2, 1)
        self.n = n
        self.register_buffer("box", torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64))

    def body(self, x: Tensor) -> Tensor:
        for _ in range(self.n):
            x = nn.functional.conv2d(x, self.get_buffer("box").to(x), padding=1)
        return nn.functional.interpolate(x, scale_factor=2)


@pytest.mark.parametrize("n", [4, 16])
def test_of_a_stack_of_boxes_it_is_a_gaussian_that_widens_like_the_root_of_the_depth(n: int) -> None:
    # Luo et al., section 2.2: n kernels of 3 uniform weights have the variance n (3^2 - 1) / 12.
    field = effective_field(Boxes(n), torch.rand(1, 1, 80, 80, dtype=torch.float64))
    sigma = sqrt(n * 8 / 12)
    x = torch.arange(len(field)) - len(field) // 2
    assert float((field.sum(0) * x**2).sum()) == pytest.approx(sigma**2, rel=1e-9)
    gaussian = torch.exp(-0.5 * (x / sigma) ** 2)
    assert torch.allclose(field.sum(0), (gaussian / gaussian.sum()).double(), atol=0.2 / n)
    assert theoretical_field(Boxes(n)) == 1 + 2 * n
    for r, share in enumerate(share_within(field)):
        assert float(share) == pytest.approx(erf((r + 0.5) / sigma / sqrt(2)) ** 2, abs=0.3 / n)


@pytest.mark.parametrize(("name", "arguments"), [("unet", {"depth": 2}), ("espcn", {"channels": 3})])
def test_crops_show_what_the_whole_image_shows(name: str, arguments: dict[str, Any]) -> None:
    network = build(name, "norm=none", **arguments).double()
    s, cell, half = network.scale, network.stride, surroundings(network)
    assert half is not None
    values = s**2 * network.channels
    lr = torch.rand(1, network.channels, 2 * half + cell + 5, 2 * half + cell + 9, dtype=torch.float64)
    lr.requires_grad_()
    sr, total = network(lr), torch.zeros(2 * half + 1, 2 * half + 1, dtype=torch.float64)
    count = -(-64 // values) * values
    for i, place in enumerate(_places(lr.shape[-2], lr.shape[-1], 2 * half + cell, cell, count)):
        top, left = place.top + place.row, place.left + place.column
        value = sr[0, i // s**2 % network.channels, s * (top + half) + i // s % s, s * (left + half) + i % s]
        (slope,) = torch.autograd.grad(value, lr, retain_graph=True)
        total += slope[0, :, top : top + 2 * half + 1, left : left + 2 * half + 1].abs().sum(0)
    assert torch.allclose(effective_field(network, lr.detach()), total / total.sum(), atol=1e-10)


def test_a_network_that_sees_the_whole_image_has_one_too() -> None:
    field = effective_field(build("deconvnet", "norm=instance"), torch.rand(1, 1, 40, 50))
    assert field.shape == (39, 39) and float(field.sum()) == pytest.approx(1)
    assert effective_side(field) < 39 and bool((field > 0).all())


def test_an_image_without_surroundings_is_refused() -> None:
    with pytest.raises(UserError, match="1x2 LR pixels is too small"):
        effective_field(build("fsrcnn"), torch.rand(1, 1, 2, 1))


# Its side


def test_the_side_of_a_point_is_1_and_of_an_even_field_nearly_all() -> None:
    point = torch.zeros(9, 9, dtype=torch.float64)
    point[4, 4] = 1
    assert effective_side(point, 1) == 1
    even = torch.full((9, 9), 1 / 81, dtype=torch.float64)
    for share in (0.01, 1 / 81, 9 / 81, 0.5, 0.95, 1):
        assert effective_side(even, share) == pytest.approx(9 * share**0.5)


@given(st.integers(0, 9), st.integers(0, 999), st.floats(0.1, 0.99))
def test_the_side_is_the_smallest_that_holds_the_share(half: int, seed: int, share: float) -> None:
    field = torch.rand(2 * half + 1, 2 * half + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    field /= field.sum()
    r = ceil((effective_side(field, share) - 1) / 2 - 1e-9)

    def within(r: int) -> float:
        return float(field[half - r : half + r + 1, half - r : half + r + 1].sum()) if r >= 0 else 0.0

    assert within(r) >= share > within(r - 1)


# The section


def test_the_section_says_a_sentence_and_figures_for_each_case() -> None:
    image = pictured(1, 40, 40)
    networks = {"narrow": build("espcn"), "wide": build("fsrcnn"), "all": build("deconvnet", "norm=instance")}
    section = fields([case(name, network, image) for name, network in networks.items()])
    assert set(section.figures["wide"]) == {figure.name for figure in FIGURES}
    assert section.figures["narrow"]["field"] == 9 and section.figures["wide"]["field"] == 17
    assert "field" not in section.figures["all"] and "no limit" in section.said[2]
    assert section.said[1].startswith("wide: 95 % of ") and "17x17" in section.said[1]
    for name, found in section.figures.items():
        shares = share_within(effective_field(networks[name], image.lr))
        least = 1 + 2 * int((shares < 0.95).sum())
        assert least - 2 < found["effective_field"] <= least
    assert section.picture.dtype == np.uint8 and section.picture.shape[-1] == 3
    assert all(tile.dtype == np.uint8 and tile.shape[-1] == 3 for tile in section.tiles.values())
    assert set(section.tiles) == set(networks)


def test_the_side_is_drawn_with_one_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("upsweep.explaining.fields.show", lambda _axes, _pixels, title, **_: titles.append(title))
    section = fields([case("narrow", build("espcn"), pictured(1, 40, 40))])
    assert titles == [f"narrow\n95 %: {section.figures['narrow']['effective_field']:.1f}, layers: 9 LR px"]
