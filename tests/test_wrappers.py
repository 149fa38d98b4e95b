"""The wrappers: the same image in tiles, and one that flips and turns with its input."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.imaging.turns import TURNS, mean_over
from upsweep.networks import checkpoints
from upsweep.networks.network import cost
from upsweep.networks.upscalers import Upscaler
from upsweep.networks.wrappers import SelfEnsemble, Tiled
from upsweep.networks.wrappers.tiling import reach, span, spans

CONF = Path(__file__).parents[1] / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GENERATORS = [name for name in choices("generator") if "upscalers" in (CONF / f"generator/{name}.yaml").read_text()]
SHALLOW = {"edsr": {"depth": 3}, "srresnet": {"depth": 3}, "rednet": {"depth": 20}}  # for the time that a test takes


@cache
def node(name: str, *overrides: str) -> dict[str, Any]:
    """A generator's description as the command line composes it."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=[f"generator={name}", *overrides])
    return cast(dict[str, Any], OmegaConf.to_container(config.generator, resolve=True))


def build(name: str, *overrides: str, **arguments: Any) -> Upscaler:
    """A generator, narrow, in evaluation mode."""
    spec = node(name, *overrides)
    torch.manual_seed(0)
    made = checkpoints.build({**spec, **({"width": 4} if "width" in spec else {}), **arguments})
    return checkpoints.as_upscaler(made, name).eval()


def image(channels: int, height: int, width: int) -> Tensor:
    torch.manual_seed(7)
    return torch.rand(1, channels, height, width)


@torch.no_grad()
def off(a: Upscaler, b: Upscaler, lr: Tensor) -> float:
    """The largest difference of what two generators make, where the outputs are of the order of 1."""
    one, other = a(lr), b(lr)
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max().clamp(min=1))


# Tiles


@pytest.mark.parametrize("doubling", [True, False])
@pytest.mark.parametrize("name", GENERATORS)
def test_tiled_equals_whole(name: str, doubling: bool) -> None:
    scale = 2 if doubling else 4 if name == "lapsrn" else 3
    generator = build(name, "norm=none", scale=scale, **SHALLOW.get(name, {}))
    # Sides that divide by nothing, tiles that do not divide them, a last tile of few pixels, and one long tile.
    margin = reach(generator)
    lr = image(generator.channels, 2 * margin + 43, 37)
    for tile in (17, 42):
        assert off(Tiled(generator, tile), generator, lr) < 1e-5


@pytest.mark.parametrize("norm", ["bn", "layer", "spectral", "weight"])
@pytest.mark.parametrize("name", ["deconvnet", "unet", "edsr"])
def test_norms_that_do_not_look_at_the_whole_image_tile(name: str, norm: str) -> None:
    generator = build(name, f"norm={norm}", depth=2)
    with torch.no_grad():
        generator.train()(image(generator.channels, 20, 20))  # moves batch norm's running statistics
    generator.eval().double()  # dividing by a small deviation, layer norm makes much of float32's rounding
    assert off(Tiled(generator, 16), generator, image(generator.channels, 61, 50).double()) < 1e-10


@pytest.mark.parametrize("norm", ["instance", "group", "bn"])
@pytest.mark.parametrize("name", ["deconvnet", "unet"])
def test_norms_that_look_at_the_whole_image_are_refused(name: str, norm: str) -> None:
    generator = build(name, f"norm={norm}", depth=2)
    if norm == "bn":
        assert isinstance(Tiled(generator, 16), Upscaler)
        tiled = Tiled(generator, 16).train()
        attempts = [lambda: tiled(image(1, 30, 30)), lambda: Tiled(generator.train(), 16)]
    else:
        attempts = [lambda: Tiled(generator, 16)]
    for attempt in attempts:
        with pytest.raises(UserError) as refusal:
            attempt()
        said = str(refusal.value)
        assert "whole image" in said and said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("activation", choices("activation"))
def test_the_reach_is_the_same_with_every_activation(activation: str) -> None:
    # Four 3x3, two taps of the deconvolution, and half an LR pixel of the last 3x3.
    assert reach(build("deconvnet", f"activation={activation}")) == 5


@pytest.mark.parametrize("upsampler", choices("upsampler"))
def test_every_upsampler_tiles(upsampler: str) -> None:
    generator = build("deconvnet", f"upsampler={upsampler}", scale=8)
    assert off(Tiled(generator, 9), generator, image(1, 40, 31)) < 1e-5


# Half of (1 + the sum of kernel - 1) of the layers on LR pixels, and what those on HR pixels add, rounded up.
@pytest.mark.parametrize(
    ("name", "radius"),
    [("bicubic", 2), ("espcn", 2 + 1 + 1), ("fsrcnn", 2 + 4 + 2), ("edsr", 1 + 32 + 1 + 1 + 1), ("vdsr", 2 + 10)],
)
def test_the_reach_is_that_of_the_papers_layers(name: str, radius: int) -> None:
    assert reach(build(name, scale=2)) == radius


def test_the_reach_does_not_depend_on_the_weights() -> None:
    generator = build("deconvnet")
    expected = reach(generator)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    assert reach(generator) == expected


class Pooling(Upscaler):
    """Max pooling in front of everything."""

    def __init__(self, stride: int) -> None:
        super().__init__(2, 1)
        self.stride = stride

    def body(self, x: Tensor) -> Tensor:
        y = nn.functional.max_pool2d(x, 3, ceil_mode=True)
        return nn.functional.interpolate(y, scale_factor=6)[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]


def test_a_generator_of_ones_own_that_pools_must_say_so() -> None:
    assert off(Tiled(Pooling(3), 10), Pooling(3), image(1, 50, 41)) == 0
    for generator in (Pooling(1), SelfEnsemble(Pooling(1))):
        with pytest.raises(UserError, match=r"^Pooling pools .* `stride`"):
            Tiled(generator, 10)


@given(size=st.integers(1, 200), tile=st.integers(1, 12), margin=st.integers(0, 9), stride=st.integers(1, 5))
def test_spans_cover_an_axis_once_and_see_enough(size: int, tile: int, margin: int, stride: int) -> None:
    tile, margin = tile * stride, margin * stride
    found = list(spans(size, tile, margin, stride))
    assert [i for one in found for i in range(one.start, one.stop)] == list(range(size))
    for one in found:
        assert one.cut_start <= max(0, one.start - margin) and min(size, one.stop + margin) <= one.cut_stop
        assert one.cut_stop - one.cut_start <= tile + 2 * margin + stride
        assert one.cut_start % stride == 0 and (size - one.cut_stop) % stride == 0


@given(start=st.integers(0, 99), side=st.integers(1, 50), margin=st.integers(0, 30), stride=st.integers(1, 5))
def test_any_part_is_cut_in_whole_cells_from_both_ends(start: int, side: int, margin: int, stride: int) -> None:
    found = span(start, min(start + side, 100), 100, margin, stride)
    assert found.cut_start <= max(0, start - margin) and min(100, found.stop + margin) <= found.cut_stop <= 100
    assert found.cut_start % stride == 0 and (100 - found.cut_stop) % stride == 0


def test_a_tile_must_be_positive() -> None:
    with pytest.raises(UserError, match="tile=0"):
        Tiled(build("bicubic"), 0)


def test_a_tile_never_sees_more_than_it_needs() -> None:
    generator = build("fsrcnn")
    tiled = Tiled(generator, 16)
    seen: list[int] = []
    generator.register_forward_pre_hook(lambda _, inputs: seen.append(max(inputs[0].shape[-2:])))
    tiled(image(1, 100, 80))
    assert len(seen) == 7 * 5 and max(seen) <= 16 + 2 * tiled.margin()


# Flips and turns

TRANSFORMS = [(turns, flip) for flip in (False, True) for turns in range(4)]


def moved(x: Tensor, turns: int, flip: bool) -> Tensor:
    y = x.rot90(turns, (-2, -1))
    return y.flip(-1) if flip else y


@pytest.mark.parametrize("name", ["deconvnet", "fsrcnn", "unet", "edsr"])
def test_self_ensemble_flips_and_turns_with_its_input(name: str) -> None:
    generator = build(name, scale=3).double()
    lr = image(generator.channels, 11, 14).double()
    ensemble = SelfEnsemble(generator)
    with torch.no_grad():
        for turns, flip in TRANSFORMS:
            assert torch.allclose(ensemble(moved(lr, turns, flip)), moved(ensemble(lr), turns, flip), atol=1e-12)
        assert not torch.allclose(generator(lr.flip(-1)), generator(lr).flip(-1), atol=1e-6), "alone it does not"


def test_self_ensemble_is_the_mean_of_eight() -> None:
    generator = build("deconvnet")
    lr = image(1, 9, 12)
    with torch.no_grad():
        eight = []
        for turns, flip in TRANSFORMS:
            y = generator(moved(lr, turns, flip))
            eight.append((y.flip(-1) if flip else y).rot90(-turns, (-2, -1)))
        assert torch.allclose(SelfEnsemble(generator)(lr), torch.stack(eight).mean(0), atol=1e-6)


# Together


@pytest.mark.parametrize("name", ["deconvnet", "unet", "bicubic"])
def test_wrappers_compose_in_any_order(name: str) -> None:
    generator = build(name, "norm=none", **({"depth": 2} if name == "unet" else {}))
    lr = image(generator.channels, 61, 50)
    expected = SelfEnsemble(generator)
    assert off(Tiled(expected, 28), expected, lr) < 1e-5
    assert off(SelfEnsemble(Tiled(generator, 28)), expected, lr) < 1e-5
    assert off(Tiled(Tiled(generator, 20), 40), generator, lr) < 1e-5


def test_a_wrapped_generator_looks_like_the_one_inside() -> None:
    generator = build("unet", scale=3, channels=3, depth=2)
    for wrapped in (Tiled(generator, 12), SelfEnsemble(generator), SelfEnsemble(Tiled(generator, 12))):
        assert (wrapped.scale, wrapped.channels, wrapped.stride, wrapped.training) == (3, 3, 4, False)
        assert cost(wrapped).parameters == cost(generator).parameters
        assert torch.equal(wrapped.pyramid(image(3, 9, 9))[-1], wrapped(image(3, 9, 9)))


@pytest.mark.parametrize(
    ("how", "passes"),
    [
        ({}, 8),
        ({"symmetry": "p4"}, 2),
        ({"symmetry": "p4m"}, 1),
        ({"views": 4}, 2),
        ({"views": 3}, 8),
        ({"views": 8, "symmetry": "p4"}, 1),
    ],
)
def test_the_self_ensemble_sees_an_image_in_no_two_ways_that_are_the_same_for_its_network(
    how: dict[str, Any], passes: int
) -> None:
    generator = build("sesr", "generator.kernel=8", **{"width": 16, "depth": 2, **how}).double()
    lr, seen = image(1, 7, 9).double(), list[Tensor]()
    with torch.no_grad():
        expected = mean_over(TURNS, generator, lr)
        ensemble = SelfEnsemble(Tiled(generator, tile=64))
        generator.register_forward_hook(lambda *_: seen.append(lr))
        torch.testing.assert_close(ensemble(lr), expected, rtol=0, atol=1e-12)
    assert len(seen) == passes
