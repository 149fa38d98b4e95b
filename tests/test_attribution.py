"""Promises of `upsweep.explaining.attribution`: maps that add up, are known for linear networks, and cost little."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from tests.test_fields import Linear
from tests.test_wrappers import build
from torch import Tensor

from upsweep import release
from upsweep.common.errors import UserError
from upsweep.data.photos import photo_files
from upsweep.explaining import attribution as module
from upsweep.explaining.attribution import (
    LAM,
    attribution,
    attribution_map,
    blurred,
    cut,
    detector,
    diffusion_index,
    distance_of,
    gini,
    spread_of,
)
from upsweep.explaining.case import Square, case
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import read_image, to_tensor
from upsweep.imaging.resize import shrink
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.upscalers import Upscaler
from upsweep.tasks.super_resolution.data import EvalImage

WINDOW = Square(70, 62, 16)
pytestmark = pytest.mark.usefixtures("one_thread")


def photo(scale: int = 2, channels: int = 1) -> EvalImage:
    """A part of the coffee, whose spoon has edges: HR of 144 x 144."""
    hr = to_tensor(read_image(photo_files(("coffee.png",))["coffee.png"]).samples)[None, :, 100:244, 330:474].float()
    hr = rgb_to_y(hr) if channels == 1 else hr
    return EvalImage("coffee", shrink(hr, scale), hr, None, None)


def of_window(sr: Tensor) -> Tensor:
    return sr[(..., *WINDOW.slices)]


def total(sr: Tensor) -> Tensor:
    """A linear objective."""
    return sr.sum((1, 2, 3))


# The path


@pytest.mark.parametrize(("sigma", "side"), [(1.2, 9), (0.4, 5), (3.0, 7)])
def test_the_blur_is_scipys(sigma: float, side: int) -> None:
    image = torch.rand(1, 2, 13, 17, dtype=torch.float64)
    padded = F.pad(image, (side // 2,) * 4, mode="replicate")
    made = blurred(padded, torch.tensor([sigma, 0.0]), side)
    for channel in range(2):
        expected = gaussian_filter(image[0, channel].numpy(), sigma, mode="nearest", radius=side // 2)
        np.testing.assert_allclose(made[0, channel].numpy(), expected, atol=1e-7)
    assert torch.equal(made[1], image[0]), "a sigma of 0 changes nothing"


@pytest.mark.parametrize("fold", [1, 7])
@pytest.mark.parametrize("corner", [(10, 14), (0, 0), (20, 32)])
def test_the_map_of_a_linear_network_is_known_in_closed_form(fold: int, corner: tuple[int, int]) -> None:
    torch.manual_seed(0)
    weight, lr = torch.randn(4, 1, 5, 5, dtype=torch.float64), torch.rand(1, 1, 18, 24, dtype=torch.float64)
    window = Square(*corner, 16)
    made = attribution_map(Linear(weight, 2), lr, window, LAM(fold=fold), total)
    covered = np.zeros((18, 24))
    covered[window.in_lr(2)] = 1
    slope = convolve2d(covered, weight[:, 0].sum(0).numpy(), mode="same")
    change = lr[0, 0].numpy() - gaussian_filter(lr[0, 0].numpy(), 1.2, mode="nearest", radius=4)
    np.testing.assert_allclose(made.numpy(), slope * change, atol=1e-12)


def test_the_detector_of_a_ramp_is_its_slope_times_the_places() -> None:
    y, x = torch.arange(6.0)[:, None], torch.arange(6.0)[None]
    ramp = (3 * y + 4 * x).expand(2, 3, 6, 6)
    assert detector(ramp).tolist() == pytest.approx([3 * 25 * 5.0] * 2)


# What it adds up to


def gained(network: Upscaler, lr: Tensor) -> float:
    """What the objective gains from the blurred LR to LR."""
    soft = torch.from_numpy(gaussian_filter(lr.numpy(), 1.2, mode="nearest", radius=4, axes=(2, 3)))
    with torch.no_grad():
        return float(detector(of_window(network(lr))) - detector(of_window(network(soft))))


def shipped(name: str, scale: int = 2) -> Upscaler:
    return load_upscaler(release.path(name, scale))


@pytest.mark.parametrize(("name", "scale"), [("fsrcnn", 2), ("fsrcnn", 3), ("deconvnet", 2)])
def test_the_map_adds_up_to_what_the_detail_gains(name: str, scale: int) -> None:
    network, lr = shipped(name, scale), photo(scale).lr
    assert float(attribution_map(network, lr, WINDOW, LAM()).sum()) == pytest.approx(gained(network, lr), rel=0.01)


def later_ends(network: Upscaler, lr: Tensor, fold: int) -> Tensor:
    """The map as the authors' code sums it: each step's gradient is that at the step's end."""
    path = blurred(F.pad(lr, (4, 4, 4, 4), mode="replicate"), torch.linspace(1.2, 0, fold + 1), 9)
    ends = path[1:].clone().requires_grad_()
    (slope,) = torch.autograd.grad(detector(of_window(network(ends))).sum(), ends)
    return (slope * path.diff(dim=0)).sum((0, 1))


def test_more_steps_converge_and_faster_than_with_the_authors_sum() -> None:
    network, lr = shipped("fsrcnn"), photo().lr
    exact = attribution_map(network, lr, WINDOW, LAM(fold=200))
    assert float(exact.sum()) == pytest.approx(gained(network, lr), rel=0.003)

    def off(made: Tensor) -> float:
        return float((made - exact).norm() / exact.norm())

    few, more = (off(attribution_map(network, lr, WINDOW, LAM(fold=fold))) for fold in (5, 40))
    assert more < 0.02 < few
    assert off(attribution_map(network, lr, WINDOW, LAM(fold=10))) < off(later_ends(network, lr, 10)) / 2


# What is cut, and what is not


@pytest.mark.parametrize("window", [Square(70, 62, 16), Square(0, 0, 9), Square(131, 128, 13)])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("fsrcnn", {}), ("espcn", {"scale": 3, "channels": 3}), ("unet", {"depth": 2}), ("deconvnet", {"scale": 8})],
)
def test_the_map_from_the_surroundings_is_that_of_the_whole_image(
    name: str, arguments: dict[str, Any], window: Square, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(name, "norm=none", **arguments).double()
    lr = photo(network.scale, network.channels).lr.double()
    made = attribution_map(network, lr, window, LAM(fold=3))
    rows, columns = cut(network, window, *lr.shape[-2:])
    outside = made.clone()
    outside[rows.cut_start : rows.cut_stop, columns.cut_start : columns.cut_stop] = 0
    assert not outside.any() and made.any()
    monkeypatch.setattr(module, "surroundings", lambda _: None)
    whole = attribution_map(network, lr, window, LAM(fold=3))
    assert torch.allclose(made, whole, atol=1e-12 * float(whole.abs().max().clamp(min=1)))


def test_steps_in_several_batches_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network, lr = build("fsrcnn").double(), photo().lr.double()
    together = attribution_map(network, lr, WINDOW, LAM(fold=7))
    monkeypatch.setattr(module, "AT_ONCE", 2000)
    assert torch.allclose(attribution_map(network, lr, WINDOW, LAM(fold=7)), together, atol=1e-12)


def test_a_network_that_sees_the_whole_image_gets_it() -> None:
    network, lr = build("deconvnet", "norm=instance").double(), photo().lr.double()
    rows, columns = cut(network, WINDOW, *lr.shape[-2:])
    assert (rows.cut_stop - rows.cut_start, columns.cut_stop - columns.cut_start) == (72, 72)
    made = attribution_map(network, lr, WINDOW, LAM(fold=40))
    # The norm evens out how strong edges are: what is gained is little beside what pixels add and take.
    assert abs(float(made.sum()) - gained(network, lr)) < 0.01 * float(made.abs().sum())


def test_no_gradient_is_left_in_the_weights() -> None:
    network = shipped("fsrcnn")
    attribution_map(network, photo().lr, WINDOW, LAM(fold=2))
    assert all(parameter.grad is None for parameter in network.parameters())


# The diffusion index


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 5.0], 3 / 4), ([2.0] * 7, 0), ([1.0, 2, 3, 4, 5], 4 / 15), ([0.0, 0, 0], 0), ([3.0], 0)],
)
def test_gini_in_closed_form(values: list[float], expected: float) -> None:
    assert gini(torch.tensor(values)) == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30), st.floats(1e-3, 1e3))
def test_gini_is_the_mean_difference_lies_in_0_to_1_and_knows_no_unit(values: list[float], unit: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    found = gini(x)
    assert -1e-9 <= found < 1
    assert gini(unit * x.flip(0)) == pytest.approx(found, abs=1e-9)
    if float(x.sum()) > 1e-6:
        assert found == pytest.approx(float((x[:, None] - x).abs().mean() / (2 * x.mean())), abs=1e-9)


def trained(kernel: int, steps: int = 100) -> Upscaler:
    """The same small network with kernels of one size, trained for a moment on the photo."""
    network = build("deconvnet", "norm=none", kernel=kernel, depth=2, skip="none", width=8).train()
    image = photo().each(lambda x: x[..., : x.shape[-2] // 2, : x.shape[-1] // 2])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(image.lr) - image.hr).square().mean().backward()
        optimizer.step()
    return network.eval()


def test_the_diffusion_index_grows_with_the_field_of_the_same_trained_network() -> None:
    image = photo()
    found = [diffusion_index(attribution_map(trained(kernel), image.lr, WINDOW, LAM())) for kernel in (1, 3, 5)]
    assert found[0] < found[1] < found[2]


def test_the_distance_of_one_pixel_is_that_from_the_windows_middle() -> None:
    one = torch.zeros(30, 30)
    one[13, 14] = -2
    assert distance_of(one, Square(16, 16, 8), 2) == pytest.approx(np.hypot(13.5 - 10, 14.5 - 10))
    assert distance_of(torch.zeros(30, 30), Square(16, 16, 8), 2) == 0


# The section


@pytest.mark.parametrize("corner", [(0, 0), (90, 100), (180, 180)])
def test_di_does_not_depend_on_the_size_of_the_image_unless_that_is_asked_for(corner: tuple[int, int]) -> None:
    small = torch.zeros(100, 100)
    small[corner[0] // 2 : corner[0] // 2 + 8, corner[1] // 2 : corner[1] // 2 + 8] = torch.rand(8, 8)
    large = F.pad(small, (0, 60, 0, 70))
    window = Square(*corner, 16)
    assert spread_of(small, window, 2, 64) == spread_of(large, window, 2, 64)
    in_small, in_large = (spread_of(one, window, 2, None) for one in (small, large))
    assert in_small is not None and in_small == pytest.approx(diffusion_index(small))
    assert in_large == pytest.approx(in_small * 10_000 / (160 * 170), rel=0.05)


def test_a_row_a_case_with_a_sentence_and_its_diffusion_index() -> None:
    image = photo()
    section = attribution([case(name, shipped(name), image) for name in ("fsrcnn", "deconvnet")], WINDOW, LAM(fold=4))
    for name, said in zip(("fsrcnn", "deconvnet"), section.said, strict=True):
        assert said.startswith(f"{name}: DI {section.figures[name]['di']:.2f}; 95 % of the attribution lies within ")
    one = attribution([case("fsrcnn", shipped("fsrcnn"), image)], WINDOW, LAM(fold=4))
    assert section.picture.shape[0] == pytest.approx(2 * one.picture.shape[0], rel=0.02)
    assert one.figures["fsrcnn"] == section.figures["fsrcnn"]
    assert all(tile.dtype == np.uint8 and tile.shape[-1] == 3 for tile in section.tiles.values())
    assert set(section.tiles) == {"fsrcnn", "deconvnet"}


def test_a_flat_window_is_said_and_is_no_number() -> None:
    flat = EvalImage("flat", torch.full((1, 1, 30, 30), 0.4), torch.full((1, 1, 60, 60), 0.4), None, None)
    network = build("bicubic", channels=1)
    assert float(attribution_map(network, flat.lr, Square(20, 20, 16), LAM()).abs().sum()) < 1e-4, (
        "neither NaN nor more"
    )
    section = attribution([case("bicubic", network, flat)], Square(20, 20, 16), LAM())
    assert not section.figures and "nothing to attribute" in section.said[0]
    tile = section.tiles["bicubic"]
    assert (tile[..., 0] == tile[..., 2]).all(), "rounding is not stretched to red and blue"


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": 0},
        {"fold": 0},
        {"kernel": 8},
        {"kernel": 1},
        {"sigma": float("nan")},
        {"fold": 2.5},
        {"sigma": "wide"},
    ],
)
def test_a_path_of_no_use_is_refused_in_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError) as refusal:
        LAM(**wrong)
    said = str(refusal.value)
    assert said.startswith(f"lam.{next(iter(wrong))}=") and said.endswith(".") and "\n" not in said


def test_the_paths_defaults_are_the_papers() -> None:
    assert LAM() == LAM(sigma=1.2, fold=50, kernel=9)
