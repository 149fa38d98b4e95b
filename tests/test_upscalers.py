"""The generators: true to their papers, exact in size, open to every choice."""

import copy
import math
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge
from upsweep.networks import checkpoints
from upsweep.networks.network import cost
from upsweep.networks.upscalers import Upscaler
from upsweep.networks.upscalers.srresnet import SRResNet
from upsweep.runs.result import Result

CONF = Path(__file__).parents[1] / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GENERATORS = [name for name in choices("generator") if "upscalers" in (CONF / f"generator/{name}.yaml").read_text()]
GROUPS = ("init", "activation", "norm", "dropout", "upsampler")


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=list(overrides))
    return {name: OmegaConf.to_container(config[name], resolve=True) for name in (*GROUPS, "generator")}


def composed(*overrides: str) -> dict[str, Any]:
    """The generator's node and those of its groups, as the command line `overrides` composes them."""
    return copy.deepcopy(_composed(overrides))


def spec(name: str, *changes: str, **arguments: Any) -> dict[str, Any]:
    """The node of a generator under its own name, with some choices ("norm=bn") and arguments replaced."""
    node: dict[str, Any] = composed(f"generator={name}")["generator"]
    for change in changes:
        group = change.partition("=")[0]
        node["recipe"][group] = composed(change)[group]
    return {**node, **arguments}


def small(node: dict[str, Any]) -> dict[str, Any]:
    """The same architecture with few channels, for what does not depend on their number."""
    return {**node, "width": 4} if "width" in node else node


def build(node: dict[str, Any], seed: int = 0) -> Upscaler:
    torch.manual_seed(seed)
    return checkpoints.as_upscaler(checkpoints.build(node), "generator")


def scales(name: str) -> tuple[int, ...]:
    generator = get_class(spec(name)["_target_"])
    assert issubclass(generator, Upscaler)
    return generator.scales


def image(channels: int, height: int, width: int, n: int = 1) -> Tensor:
    torch.manual_seed(7)
    return torch.rand(n, channels, height, width)


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a - b).square().mean() / b.square().mean()).sqrt().item()


# What every generator promises


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", GENERATORS)
def test_output_is_exactly_scale_times_the_input(name: str, channels: int) -> None:
    for scale in scales(name):
        generator = build(small(spec(name, scale=scale, channels=channels))).eval()
        for height, width in [(1, 1), (5, 8), (11, 3)]:
            with torch.no_grad():
                sr = generator(image(channels, height, width))
            assert sr.shape == (1, channels, scale * height, scale * width)
            assert sr.isfinite().all()


@pytest.mark.parametrize("name", GENERATORS)
def test_what_it_cannot_make_is_refused_in_one_sentence(name: str) -> None:
    node = spec(name)
    most = 2.5 if name == "bicubic" else 7  # bicubic has no layers, and so no largest scale
    for key, wrong in (("scale", most), ("scale", 1), ("channels", 2)):
        with pytest.raises(UserError) as refusal:
            build({**node, key: wrong})
        said = str(refusal.value)
        assert f"{key}={wrong}" in said
        assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("norm", ["none", "bn"])
@pytest.mark.parametrize("name", GENERATORS)
def test_gradients_reach_every_parameter(name: str, norm: str) -> None:
    generator = build(small(spec(name, f"norm={norm}"))).train()
    lr = image(generator.channels, 12, 9, n=2)
    hr = image(generator.channels, 12 * generator.scale, 9 * generator.scale, n=2)
    loss = sum(
        (level - hr[..., : level.shape[-2], : level.shape[-1]]).square().sum() for level in generator.pyramid(lr)
    )
    if not any(True for _ in generator.parameters()):
        pytest.skip("nothing to learn")
    assert isinstance(loss, Tensor)
    loss.backward()
    for key, parameter in generator.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        # A bias in front of a batch norm is subtracted again: its gradient is zero, as it must be.
        if not (norm == "bn" and key.endswith("layer.bias")):
            assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", GENERATORS)
def test_bfloat16_autocast_and_channels_last_agree_with_float32(name: str) -> None:
    generator = build(small(spec(name))).eval()
    lr = image(generator.channels, 9, 10)
    sr = generator(lr)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert relative_error(generator(lr.contiguous(memory_format=torch.channels_last)), sr) < 1e-5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = generator(lr)
    assert half.shape == sr.shape
    assert relative_error(half.float(), sr) < 0.05
    if half.requires_grad:
        half.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_torch_compile_takes_the_whole_graph(name: str) -> None:
    torch.compiler.reset()
    generator = build(small(spec(name)))
    lr = image(generator.channels, 9, 10)
    # aot_eager traces forward and backward as the default does, and leaves only the code generation out.
    compiled = torch.compile(generator, backend="aot_eager", fullgraph=True)
    sr = compiled(lr)
    assert relative_error(sr, generator(lr)) < 1e-5
    if sr.requires_grad:
        sr.square().mean().backward()


@pytest.mark.parametrize("name", GENERATORS)
def test_same_seed_same_weights(name: str) -> None:
    node = small(spec(name))
    first, second, other = build(node, 3), build(node, 3), build(node, 4)
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    drawn = {key for key, value in first.state_dict().items() if not torch.equal(value, other.state_dict()[key])}
    assert bool(drawn) == any(p.ndim > 1 for p in first.parameters())


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", GENERATORS)
def test_every_choice_works_with_every_generator(name: str, group: str) -> None:
    for choice in choices(group):
        generator = build(small(spec(name, f"{group}={choice}"))).train()
        sr = generator(image(generator.channels, 9, 10))
        assert sr.shape[-2:] == (9 * generator.scale, 10 * generator.scale), choice
        assert sr.isfinite().all(), choice
        if sr.requires_grad:
            sr.square().mean().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters()), choice


def leaves_in_order(generator: Upscaler) -> list[nn.Module]:
    """The modules without children, in the order in which a forward pass runs them."""
    ran: list[nn.Module] = []
    for module in generator.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: ran.append(module))
    generator(image(generator.channels, 6, 5, n=2))
    return ran


@pytest.mark.parametrize("place", ["all", "last"])
@pytest.mark.parametrize("name", GENERATORS)
def test_norm_and_dropout_follow_layers_but_never_the_output(name: str, place: str) -> None:
    node = small(spec(name, "norm=bn", "dropout=p50"))
    node["recipe"]["dropout"]["place"] = place
    generator = build(node).train()
    ran = leaves_in_order(generator)
    layers = [i for i, leaf in enumerate(ran) if isinstance(leaf, nn.Conv2d | nn.ConvTranspose2d)]
    if not layers:
        assert not any(True for _ in generator.parameters())
        return
    norms = [i for i, leaf in enumerate(ran) if isinstance(leaf, nn.BatchNorm2d)]
    drops = [i for i, leaf in enumerate(ran) if isinstance(leaf, nn.Dropout)]
    assert norms and drops
    assert max(norms + drops) < layers[-1]
    if place == "last":
        assert len(drops) == 1, "one dropout, in front of the last layer"


@pytest.mark.parametrize("name", GENERATORS)
def test_the_command_line_wins_over_the_papers_choices(name: str) -> None:
    chosen = {"init": "xavier", "activation": "sigmoid", "norm": "bn", "dropout": "p20", "upsampler": "resize"}
    nodes = composed(f"generator={name}", *(f"{group}={choice}" for group, choice in chosen.items()))
    for group, choice in chosen.items():
        assert nodes["generator"]["recipe"][group] == composed(f"{group}={choice}")[group]


@pytest.mark.parametrize("name", GENERATORS)
def test_a_pyramid_ends_with_the_output(name: str) -> None:
    generator = build(small(spec(name, scale=8))).eval()
    lr = image(generator.channels, 4, 5)
    levels = generator.pyramid(lr)
    assert torch.equal(levels[-1], generator(lr))
    sizes = [tuple(level.shape) for level in levels]
    factors = [2, 4, 8] if name == "lapsrn" else [8]
    assert sizes == [(1, generator.channels, 4 * factor, 5 * factor) for factor in factors]


# Parameters and geometry, by the papers

# Weights alone, and all parameters, at the scale and channels of the source.
COUNTS = [
    ("bicubic", 2, 1, 0, 0),
    # Dong et al. 2016: 12,464; 233 biases and 112 + 60 slopes beside them
    ("fsrcnn", 2, 1, 12_464, 12_809),
    ("fsrcnn", 3, 1, 12_464, 12_809),
    ("fsrcnn", 4, 1, 12_464, 12_809),
    # Shi et al. 2016, section 3.1: (f, n) = (5, 64), (3, 32), 3
    ("espcn", 3, 1, 25 * 64 + 9 * 64 * 32 + 9 * 32 * 9, 22_624 + 64 + 32 + 9),
    # Bhardwaj et al. 2022, table 1: 13.52K at x2, 18.32K at x4; 96 biases and 80 slopes beside
    ("sesr", 2, 1, 13_520, 13_520 + 6 * 16 + 1 + 5 * 16),
    ("sesr", 4, 1, 18_320, 18_320 + 6 * 16 + 1 + 5 * 16),
    ("vdsr", 2, 1, 664_704, 664_704),
    ("vdsr", 4, 1, 664_704, 664_704),
    ("lapsrn", 4, 1, 812_768, 812_768),
    ("edsr", 2, 3, 1_369_859 - 64 * 34 - 256 - 3, 1_369_859),
    ("edsr", 3, 3, 1_554_499 - 64 * 34 - 576 - 3, 1_554_499),
    ("edsr", 4, 3, 1_517_571 - 64 * 34 - 512 - 3, 1_517_571),
    ("srcnn", 3, 1, 57_184, 57_184 + 64 + 32 + 1),
    # 37 biased layers but the last two steps and the output: 64 each; 33 norms of 128; 19 slopes
    ("srresnet", 4, 3, 1_549_462 - 64 * 34 - 512 - 3 - 33 * 128 - 19, 1_549_462),
    ("rednet", 2, 1, 9 * 64 * (2 + 28 * 64), 9 * 64 * (2 + 28 * 64) + 29 * 64 + 1),
    # Two 3x3 a level down and up, 2x2 on the way up, 1x1 at the end
    (
        "unet",
        2,
        1,
        64
        + sum(9 * w * (before + w) for before, w in [(1, 64), (64, 128), (128, 256), (256, 512), (512, 1024)])
        + sum(4 * 2 * w * w + 9 * w * (2 * w + w) for w in (64, 128, 256, 512)),
        31_030_593,
    ),
]


@pytest.mark.parametrize(("name", "scale", "channels", "weights", "parameters"), COUNTS)
def test_parameters_equal_the_paper(name: str, scale: int, channels: int, weights: int, parameters: int) -> None:
    with torch.device("meta"):
        generator = build(spec(name, scale=scale, channels=channels))
    assert sum(p.numel() for p in generator.parameters() if p.ndim > 1) == weights
    assert sum(p.numel() for p in generator.parameters()) == parameters


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_fsrcnn_ends_with_the_papers_deconvolution(scale: int) -> None:
    generator = build(spec("fsrcnn", scale=scale))
    deconv = generator.upsampler
    assert isinstance(deconv, nn.ConvTranspose2d)
    assert (deconv.kernel_size, deconv.stride) == ((9, 9), (scale, scale))
    assert deconv.padding == (4, 4) and deconv.output_padding == (scale - 1, scale - 1)
    assert deconv.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert leaves_in_order(generator)[-1] is deconv


def positive(network: nn.Module) -> None:
    """Make all weights positive, so that no path cancels another, and no ReLU closes."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.fill_(0.5 / math.prod(module.kernel_size) / module.in_channels)


def reach(generator: Upscaler, size: int) -> set[int]:
    """How many input pixels in a row an output pixel sees, by its gradient, for all phases of the output."""
    generator = generator.double().eval()
    positive(generator)
    lr = torch.rand(1, generator.channels, size, size, dtype=torch.float64, requires_grad=True)
    sr = generator.body(lr)
    scale = sr.shape[-1] // size
    seen = set()
    for phase in range(scale):
        middle = size // 2 * scale
        (gradient,) = torch.autograd.grad(sr[0, 0, middle + phase, middle], lr, retain_graph=True)
        rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
        assert rows[0] > 0 and rows[-1] < size - 1, "the field must not touch the border"
        seen.add(int(rows[-1] - rows[0]) + 1)
    return seen


def deconv_taps(kernel: int, stride: int) -> set[int]:
    """How many input pixels meet in an output pixel of a deconvolution (Dumoulin and Visin 2016)."""
    return {kernel // stride, -(-kernel // stride)}


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fsrcnn_receptive_field(scale: int) -> None:
    # 5x5, then four 3x3 (the 1x1 add nothing): 1 + 4 + 4 * 2 = 13 features, then the deconvolution's taps.
    expected = {13 + taps - 1 for taps in deconv_taps(9, scale)}
    assert reach(build(spec("fsrcnn", scale=scale)), 31) == expected


@pytest.mark.parametrize("scale", [2, 3])
def test_deconvnet_receptive_field(scale: int) -> None:
    # Four 3x3; a deconvolution of kernel 2s has two taps; the last 3x3 on HR pixels may see one LR pixel more.
    seen = reach(build(spec("deconvnet", scale=scale, skip="none")), 21)
    assert seen <= {9 + 1, 9 + 2} and 9 + 2 in seen


# Kernels of the convolutions one after another: the field is 1 + the sum of (kernel - 1).
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("srcnn", [9, 5, 5]),
        ("vdsr", [3] * 20),  # the paper's 41 x 41
        ("rednet", [3] * 30),
        ("espcn", [5, 3, 3]),  # the last one makes all phases at once
        ("sesr", [5, *[3] * 5, 5]),  # so does its deconvolution, of kernel 5s and stride s
        ("edsr", [3] * (1 + 2 * 16 + 1 + 1 + 1)),
        ("srresnet", [9] + [3] * (2 * 16 + 1 + 1)),
    ],
)
def test_receptive_field_of_a_chain_of_convolutions(name: str, kernels: list[int]) -> None:
    generator = build(small(spec(name)))
    field = 1 + sum(kernel - 1 for kernel in kernels)
    if name in ("srcnn", "vdsr", "rednet"):
        generator.upsampler = nn.Identity()  # seen from the enlarged image
        assert reach(generator, field + 4) == {field}
    elif name in ("espcn", "sesr"):
        assert reach(generator, field + 4) == {field}
    else:
        # Seen from LR through the last convolution on HR pixels, of which two or more phases reach further.
        generator.last = nn.Conv2d(4, 3, 1)
        lr_kernels = kernels if name == "srresnet" else kernels[:-1]
        assert reach(generator, 90) == {1 + sum(kernel - 1 for kernel in lr_kernels)}


# The papers' details


def test_lapsrn_image_branch_starts_as_bilinear_interpolation() -> None:
    generator = build(small(spec("lapsrn", scale=4, channels=3)))
    with torch.no_grad():
        for key, parameter in generator.named_parameters():
            if "detail" in key:
                parameter.zero_()
    lr = image(3, 9, 8)
    once, twice = generator.pyramid(lr)
    bilinear = partial(nn.functional.interpolate, scale_factor=2, mode="bilinear", align_corners=False)
    inside = (..., slice(1, -1), slice(1, -1))  # beyond the border a deconvolution sees zeros
    assert torch.allclose(once[inside], bilinear(lr)[inside], atol=1e-6)
    assert torch.allclose(twice[..., 3:-3, 3:-3], bilinear(once)[..., 3:-3, 3:-3], atol=1e-6)


def test_lapsrn_has_5_convolutions_a_level_at_x8_as_in_the_paper() -> None:
    for scale, depth in [(2, 10), (4, 10), (8, 5)]:
        generator = build(small(spec("lapsrn", scale=scale)))
        convs = sum(isinstance(m, nn.Conv2d) for m in generator.modules())
        assert convs == 1 + int(math.log2(scale)) * (depth + 1)


@pytest.mark.parametrize(("name", "weights", "biases"), [("vdsr", 664_704, 19 * 64 + 1), ("lapsrn", 812_768, 1474)])
def test_biases_can_be_had(name: str, weights: int, biases: int) -> None:
    with torch.device("meta"):
        generator = build(spec(name, scale=4, bias=True))
    assert sum(p.numel() for p in generator.parameters()) == weights + biases


@pytest.mark.parametrize("name", ["srcnn", "vdsr", "rednet"])
def test_upsampler_says_how_the_input_is_enlarged(name: str) -> None:
    lr = image(1, 7, 9)
    bicubic = build(small(spec(name, scale=3))).get_submodule("upsampler")
    assert torch.allclose(bicubic(lr), enlarge(lr, 3))
    deconv = build(small(spec(name, "upsampler=deconv", scale=3))).get_submodule("upsampler")
    assert isinstance(deconv, nn.ConvTranspose2d)
    assert (deconv.in_channels, deconv.out_channels, deconv.stride) == (1, 1, (3, 3))


@pytest.mark.parametrize("name", ["vdsr", "rednet", "unet"])
def test_the_last_layer_adds_to_the_bicubic_enlargement(name: str) -> None:
    generator = build(small(spec(name, scale=2)))
    with torch.no_grad():
        for parameter in generator.get_submodule("last").parameters():
            parameter.zero_()
    lr = image(1, 7, 9)
    assert torch.allclose(generator(lr), enlarge(lr, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_edsr_takes_off_the_mean_colour_and_puts_it_back(channels: int) -> None:
    generator = build(small(spec("edsr", "init=he", channels=channels, depth=1)))
    colour = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    if channels == 1:
        # Y of BT.601 in studio range
        colour = (16 + (colour * torch.tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)).sum(1, keepdim=True)) / 255
    flat = colour.expand(1, channels, 6, 6)
    assert torch.allclose(generator(flat), colour.expand(1, channels, 12, 12), atol=1e-5)
    assert "mean" not in generator.state_dict()


@pytest.mark.parametrize("norm", ["bn", "instance", "group", "layer"])
def test_srresnet_starts_as_the_network_without_its_residual_branches(norm: str) -> None:
    net = build(small(spec("srresnet", f"norm={norm}", depth=3, residual_gain=0.0))).train()
    lr = image(3, 7, 6, n=2)
    assert isinstance(net, SRResNet)
    torch.testing.assert_close(net(lr), net.last(net.upsampler(net.first(lr))))
    assert all(norm.weight.eq(1).all() for name, norm in net.named_modules() if name.endswith("body.0.norm"))


def test_sesr_adds_the_first_features_to_the_last() -> None:
    generator = build(spec("sesr", "init=he", skip="none", centre=0.0))
    lr = image(1, 7, 6)
    with torch.no_grad():
        for parameter in generator.get_submodule("map").parameters():
            parameter.zero_()
    upsampler, extract = generator.get_submodule("upsampler"), generator.get_submodule("extract")
    torch.testing.assert_close(generator(lr), upsampler(extract(lr)))


@pytest.mark.parametrize("name", ["deconvnet", "fsrcnn", "sesr"])
@pytest.mark.parametrize("skip", ["bicubic", "none"])
def test_centre_moves_what_the_network_sees_and_not_the_skip(name: str, skip: str) -> None:
    lr = image(1, 6, 7)
    plain, moved = (build(spec(name, skip=skip, centre=centre)) for centre in (0.0, 0.25))
    added = enlarge(lr, 2) if skip == "bicubic" else torch.zeros(())
    torch.testing.assert_close(plain(lr), plain.body(lr) + added)
    torch.testing.assert_close(moved(lr), plain.body(lr - 0.25) + added)


def test_edsr_scales_its_residuals() -> None:
    lr = image(3, 6, 6)
    full, none = (build(small(spec("edsr", scaling=scaling, depth=2))) for scaling in (1.0, 0.0))
    assert not torch.allclose(full(lr), none(lr))
    with torch.no_grad():
        for block in list(full.get_submodule("blocks").children())[:-1]:
            for parameter in block.parameters():
                parameter.zero_()
    assert torch.allclose(full(lr), none(lr))


@pytest.mark.parametrize(("depth", "joined"), [(10, []), (20, [2, 4, 6, 8]), (30, [1, 3, 5, 7, 9, 11, 13])])
def test_rednet_joins_every_second_convolution_to_its_mirror(depth: int, joined: list[int]) -> None:
    generator = build(small(spec("rednet", depth=depth)))
    half = depth // 2
    layers = [m for m in generator.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert [isinstance(m, nn.ConvTranspose2d) for m in layers] == [False] * half + [True] * half
    assert [int(i) for i in dict(generator.get_submodule("joins").named_children())] == joined
    # With a mirror's deconvolution silenced, its convolution's features alone go on, through the activation.
    seen: dict[str, Tensor] = {}
    for i in joined:
        silenced = copy.deepcopy(generator)
        with torch.no_grad():
            for parameter in silenced.get_submodule(f"deconvs.{i - 1}").parameters():
                parameter.zero_()
        for place in (f"convs.{half - i - 1}", f"joins.{i}"):
            keep = partial(seen.__setitem__, place.partition(".")[0])
            silenced.get_submodule(place).register_forward_hook(lambda _, __, y, keep=keep: keep(y))
        silenced(image(1, 6, 6))
        assert torch.allclose(seen["joins"], seen["convs"].relu())


def test_fsrcnn_is_its_papers_recipe_unless_the_command_line_says_otherwise() -> None:
    paper = build(spec("fsrcnn"))
    assert sum(isinstance(m, nn.PReLU) for m in paper.modules()) == 7
    relu = build(composed("generator=fsrcnn", "activation=relu")["generator"])
    assert sum(isinstance(m, nn.ReLU) for m in relu.modules()) == 7
    assert not any(isinstance(m, nn.PReLU) for m in relu.modules())
    assert sum(p.numel() for p in relu.parameters()) == 12_809 - 5 * 12 - 2 * 56


def test_article_net_is_the_literal_network_of_the_article() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=["experiment=article_net"])
    generator = instantiate(config.generator)
    assert isinstance(generator, Upscaler)
    ran = leaves_in_order(generator)
    kinds = (nn.Conv2d, nn.ReLU, nn.ConvTranspose2d, nn.ReLU)
    assert len(ran) == len(kinds) and all(map(isinstance, ran, kinds))
    deconv = ran[2]
    assert isinstance(deconv, nn.ConvTranspose2d) and deconv.stride == (1, 1)
    assert (generator(image(3, 6, 6) - 0.5) >= 0).all()


def test_deconvnet_is_configurable() -> None:
    generator = build(spec("deconvnet", width=5, depth=3, kernel=5, scale=8))
    convs = [m for m in generator.modules() if isinstance(m, nn.Conv2d)]
    deconvs = [m for m in generator.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.out_channels, m.kernel_size) for m in convs] == [(5, (5, 5))] * 3 + [(1, (5, 5))]
    assert [(m.out_channels, m.stride) for m in deconvs] == [(5, (2, 2))] * 3
    for wrong in ({"width": 0}, {"depth": 0}, {"kernel": 4}, {"skip": "nearest"}):
        with pytest.raises(UserError):
            build(spec("deconvnet", **wrong))
    for centre in (math.nan, math.inf, True, "a", None):
        with pytest.raises(UserError, match=r"generator\.centre="):
            build(spec("deconvnet", centre=centre))


@pytest.mark.parametrize("scale", [2, 3])
def test_cost_counts_multiply_adds_of_an_output_pixel(scale: int) -> None:
    # deconvnet of ReLU: 4 convolutions and a deconvolution of kernel 2s on LR, the last convolution on HR.
    width = 6
    generator = build(spec("deconvnet", "upsampler=subpixel", width=width, depth=4, scale=scale, skip="none"))
    lr_macs = 9 * width + 3 * 9 * width**2 + 9 * width**2 * scale**2
    price = cost(generator.train())
    assert price.macs_per_pixel == pytest.approx(lr_macs / scale**2 + 9 * width)
    assert price.parameters == sum(p.numel() for p in generator.parameters())
    assert generator.training


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (("deconvnet", "espcn", "fsrcnn", "srcnn", "lapsrn", "edsr", "srresnet", "sesr"), 800),
        (("unet", "vdsr", "rednet"), 150),
    ],
    ids=["light", "deep"],
)
def test_each_trains_well_above_bicubic_by_its_name_alone(names: tuple[str, ...], steps: int, tmp_path: Path) -> None:
    """On one of the default photos, in a fraction of the default budget, with every other choice at its default."""
    budget = ("data.patch_size=12", "data.batch_size=4", f"data.patches_per_epoch={4 * steps}", "trainer.max_epochs=1")
    less = ("trainer.limit_val_batches=1", "logger=none", "callbacks.pictures=null", "report.enabled=false")
    door = CONF.parent / "src" / "train.py"
    sweep = (f"generator={','.join(names)}", "hydra.launcher.parallel=2", f"hydra.sweep.dir={tmp_path}")
    subprocess.run([sys.executable, door, "-m", *sweep, *budget, *less], cwd=tmp_path, check=True)
    results = {name: Result.read(tmp_path / str(i)) for i, name in enumerate(names)}
    gains = {name: None if result is None else result.lead() for name, result in results.items()}
    assert {name: gain for name, gain in gains.items() if gain is None or gain < 0.3} == {}
