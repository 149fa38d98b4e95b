"""Layers that share weights among rotations and flips: what turns with the image, and what that costs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from upsweep.blocks import Recipe, conv
from upsweep.blocks.activation import PReLU
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import LSUV, He, Identity, Init
from upsweep.blocks.norm import BatchNorm, Norm, WeightNorm
from upsweep.blocks.symmetry import ORDER, Symmetry, quotients, share
from upsweep.blocks.upsampler import Deconv, Resize, SubPixel
from upsweep.common.errors import UserError
from upsweep.imaging.turns import TURNS, turned
from upsweep.networks.network import cost
from upsweep.networks.upscalers.deconvnet import DeconvNet
from upsweep.networks.upscalers.fsrcnn import FSRCNN
from upsweep.networks.upscalers.sesr import SESR

KINDS: list[tuple[type[Any], dict[str, int]]] = [
    (SESR, {"width": 16, "depth": 2}),
    (DeconvNet, {"width": 8, "depth": 2}),
    (FSRCNN, {"d": 16, "s": 8, "m": 2}),
]


class Slopes(nn.Module):
    """An activation of somebody's, with a parameter whose orientations nobody knows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(0.1, 1, channels).view(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x * self.slope)


def recipe(init: Init | None = None, norm: Norm | None = None, upsampler: Any = None) -> Recipe:
    rule = Identity(last=He(gain=0.5)) if init is None else init
    return Recipe(rule, PReLU, norm or Norm(), Dropout(), upsampler or Deconv(multiple=3))


def build(kind: type[Any], given: dict[str, Any]) -> Any:
    return kind(**{"recipe": recipe()} | given)


def built(kind: type[Any], widths: dict[str, int], symmetry: str, scale: int = 2, **given: Any) -> Any:
    """A network whose weights, biases and slopes are none of those that it starts with."""
    torch.manual_seed(0)
    network = build(kind, {"symmetry": symmetry, "scale": scale, **widths, **given}).double().eval()
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return network


def image(channels: int, height: int, width: int) -> Tensor:
    return torch.rand(2, channels, height, width, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(["p4", "p4m"]),
    st.sampled_from([2, 4]),
    st.integers(5, 9),
    st.integers(5, 9),
)
def test_the_output_turns_with_the_image(
    kind: tuple[type[Any], dict[str, int]], symmetry: Symmetry, scale: int, height: int, width: int
) -> None:
    network, lr = built(*kind, symmetry, scale, skip="bicubic"), image(1, height, width)
    with torch.no_grad():
        sr = network(lr)
        for number, turn in enumerate(TURNS):
            same = torch.allclose(network(turned(lr, turn)), turned(sr, turn), atol=1e-9)
            assert same == (number < ORDER[symmetry]), turn


def test_views_may_add_the_flips() -> None:
    network, lr = built(*KINDS[0], "p4", views=8), image(1, 5, 6)
    for turn in TURNS:
        torch.testing.assert_close(network(turned(lr, turn)), turned(network(lr), turn))


@pytest.mark.parametrize(("scale", "kernel"), [(2, 6), (3, 7), (3, 9)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_that_lies_evenly_turns(kind: tuple[type[Any], dict[str, int]], scale: int, kernel: int) -> None:
    network = built(*kind, "p4", scale, recipe=recipe(upsampler=Deconv(kernel=kernel)))
    lr = image(1, 5, 6)
    torch.testing.assert_close(network(turned(lr, TURNS[1])), turned(network(lr), TURNS[1]))


def test_layers_that_cannot_turn_are_refused() -> None:
    for layer, said in (
        (nn.Conv2d(8, 8, 3, groups=2), "parts that turn"),
        (nn.Conv2d(8, 8, 3, stride=2), "parts that turn"),
        (nn.Conv2d(8, 8, (3, 1)), "parts that turn"),
        (nn.BatchNorm2d(8), "norm=none"),
    ):
        last = conv(8, 1, 3)
        with pytest.raises(UserError, match=said):
            share(nn.Sequential(conv(1, 8, 3), layer, last), "p4", last)


def test_colours_are_not_orientations() -> None:
    network, lr = built(*KINDS[0], "p4", channels=3), image(3, 5, 6)
    torch.testing.assert_close(network(turned(lr, TURNS[1])), turned(network(lr), TURNS[1]))
    assert not torch.allclose(network(lr.roll(1, 1)), network(lr).roll(1, 1))


@pytest.mark.parametrize("scale", [2, 3])
def test_a_nearest_enlargement_turns_too(scale: int) -> None:
    network, lr = built(*KINDS[1], "p4m", scale, recipe=recipe(upsampler=Resize())), image(1, 6, 5)
    for turn in TURNS:
        torch.testing.assert_close(network(turned(lr, turn)), turned(network(lr), turn))


@pytest.mark.parametrize("symmetry", ["p4", "p4m"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_divided_and_multiply_adds_are_not(
    kind: tuple[type[Any], dict[str, int]], symmetry: Symmetry
) -> None:
    plain, shared = (cost(built(*kind, each)) for each in ("none", symmetry))
    biases = 1  # of the image that is made; it has no orientation
    assert shared.parameters - biases == (plain.parameters - biases) / ORDER[symmetry]
    assert shared.macs_per_pixel == plain.macs_per_pixel


def test_a_quotient_is_what_is_left_to_turn() -> None:
    lr = image(1, 3, 4)
    for g, row in enumerate(quotients(8)):
        assert sorted(row) == list(range(8)) and row[g] == 0
        for h, left in enumerate(row):
            assert torch.equal(turned(turned(lr, TURNS[left]), TURNS[g]), turned(lr, TURNS[h]))


def test_it_starts_as_its_rule_says() -> None:
    torch.manual_seed(0)
    network = SESR(recipe(Identity(noise=0)), 2, width=16, depth=3, symmetry="p4")
    features = torch.rand(1, 16, 5, 5)
    torch.testing.assert_close(network.map(features), 2 * features)
    he = SESR(recipe(He(gain=1.0)), 2, width=64, depth=9, symmetry="p4")
    mapping = torch.stack([m.weight for m in he.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 64])
    assert mapping.std().item() == pytest.approx(1 / 24, rel=0.01), "of the fans that it runs with"


def test_it_can_be_adjusted_to_data() -> None:
    network = SESR(recipe(LSUV()), 2, width=16, depth=2, symmetry="p4")
    batch = torch.rand(4, 1, 16, 16)
    network.calibrate(lambda: batch)
    assert network.extract(batch - network.centre).std().item() == pytest.approx(1, rel=0.05)
    torch.testing.assert_close(network(turned(batch, TURNS[1])), turned(network(batch), TURNS[1]))


def test_training_keeps_the_symmetry() -> None:
    torch.manual_seed(0)
    network = SESR(recipe(), 2, width=16, depth=2, symmetry="p4")
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    lr, hr = torch.rand(2, 1, 6, 6), torch.rand(2, 1, 12, 12)
    before = [p.detach().clone() for p in network.parameters()]
    (network(lr) - hr).square().mean().backward()
    optimizer.step()
    assert all(not torch.equal(p, old) for p, old in zip(network.parameters(), before, strict=True))
    torch.testing.assert_close(network(turned(lr, TURNS[2])), turned(network(lr), TURNS[2]))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"symmetry": "p3"}, r"generator\.symmetry=p3 must be one of none, p4, p4m"),
        ({"symmetry": "p4", "width": 18}, "a multiple of 4, not 18"),
        ({"symmetry": "p4m", "width": 12}, "a multiple of 8, not 12"),
        ({"symmetry": "p4", "recipe": recipe(norm=BatchNorm())}, "symmetry=p4 needs norm=none"),
        ({"symmetry": "p4", "recipe": recipe(norm=WeightNorm())}, "symmetry=p4 needs norm=none"),
        ({"symmetry": "p4", "recipe": recipe(upsampler=SubPixel())}, "needs upsampler=deconv or resize"),
        ({"symmetry": "p4", "recipe": recipe(upsampler=Deconv(kernel=9))}, r"set upsampler\.kernel=10"),
        (
            {"symmetry": "p4", "recipe": recipe(upsampler=Deconv(kernel=7, padding=3)), "scale": 3},
            r"upsampler\.kernel=7",
        ),
        ({"symmetry": "p4", "views": 4}, r"views=4 adds nothing to generator\.symmetry=p4"),
        ({"symmetry": "p4m", "views": 8}, r"views=8 adds nothing to generator\.symmetry=p4m"),
        ({"symmetry": "p4", "recipe": replace(recipe(), activation=Slopes)}, "parts that turn, and Slopes does not"),
    ],
)
def test_what_cannot_turn_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        build(SESR, {"width": 16, "depth": 2} | given)


@pytest.mark.parametrize(("kind", "widths"), KINDS)
def test_at_x2_a_flat_image_stays_flat_because_its_four_phases_are_turned_into_one_another(
    kind: type[Any], widths: dict[str, int]
) -> None:
    flat = torch.full((1, 1, 32, 32), 0.3, dtype=torch.float64)
    spread = {
        symmetry: built(kind, widths, symmetry, skip="none")(flat)[..., 28:36, 28:36].std().item()
        for symmetry in ("none", "p4")
    }
    assert spread["p4"] < 1e-9 < 1e-3 < spread["none"], "no checkerboard, whatever the weights are"
