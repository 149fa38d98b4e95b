"""The discriminators: true to their papers, exact in size, open to every choice."""

from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from upsweep.blocks import Recipe
from upsweep.blocks.init import Layer
from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.networks.discriminators import Discriminator
from upsweep.networks.discriminators.resnet import DownBlock
from upsweep.networks.network import cost, remove_biases

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("init", "activation", "norm", "dropout")
pytestmark = pytest.mark.usefixtures("one_thread")
DISCRIMINATORS = sorted(path.stem for path in (CONF / "discriminator").glob("*.yaml"))


@cache
def chosen(choice: str) -> Any:
    group, name = choice.split("=")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return OmegaConf.to_container(compose(None, [f"+{group}={name}"])[group], resolve=True)


def recipe(*choices: str) -> Recipe:
    """Leaky ReLU, He, no norm and no dropout, or what `choices` say."""
    usual = ["activation=leaky_relu", "init=he", "norm=none", "dropout=none", "upsampler=deconv"]
    node = {choice.split("=")[0]: chosen(choice) for choice in [*usual, *choices]}
    made = checkpoints._make({"_target_": "upsweep.blocks.Recipe", **node})
    assert isinstance(made, Recipe)
    return made


def build(name: str, *overrides: str, seed: int = 0, **arguments: Any) -> Discriminator:
    node = OmegaConf.load(CONF / "discriminator" / f"{name}.yaml")
    kind = get_class(str(OmegaConf.select(node, "_target_")))
    torch.manual_seed(seed)
    network = kind(**{"recipe": recipe(*overrides), "size": 28, "channels": 1, "width": 4, **arguments})
    assert isinstance(network, Discriminator)
    return network


def images(network: Discriminator, n: int = 3) -> Tensor:
    shape = n, network.channels, network.size, network.size
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 40, 48, 64, 128])
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_image_gets_one_logit(name: str, size: int, channels: int) -> None:
    network = build(name, size=size, channels=channels, width=2)
    logits = network(images(network))
    assert logits.shape == (3,) and logits.isfinite().all()
    assert network(images(network)[:1]).shape == (1,)
    assert network.example(1, 2).shape == (1, channels, size, size)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_what_it_cannot_take_is_refused_in_one_sentence(name: str) -> None:
    for wrong, words in [
        ({"size": 30}, ["data.size=30", "28, 32, 48, 64, 128"]),
        ({"channels": 2}, ["discriminator.channels=2"]),
        ({"width": 0}, ["discriminator.width=0 must be at least 1"]),
    ]:
        with pytest.raises(UserError) as refusal:
            build(name, **wrong)
        said = str(refusal.value)
        assert all(word in said for word in words), said
        assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_every_choice_trains_every_parameter(name: str, group: str) -> None:
    for file in sorted((CONF / group).glob("*.yaml")):
        network = build(name, f"{group}={file.stem}").train()
        F.softplus(network(images(network))).mean().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), (file.stem, key)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_gradients_reach_every_parameter_and_the_image_also_twice(name: str) -> None:
    """As penalties on the gradient need it."""
    network = build(name, "activation=elu").double()
    x = images(network).double().requires_grad_()
    (gradient,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    (gradient.square().sum() + network(x).sum()).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_norms_of_weights_cover_every_layer_and_spectral_norm_leaves_none_above_1(name: str) -> None:
    network = build(name, "norm=spectral", width=8)
    layers = [layer for layer in network.modules() if isinstance(layer, Layer)]
    assert layers and all(is_parametrized(layer, "weight") for layer in layers)
    for _ in range(15):  # of power iteration, as many steps as at the start
        network.train()(images(network))
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.02)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_bfloat16_channels_last_and_compilation_agree_with_float32(name: str) -> None:
    network = build(name).eval()
    x = images(network)
    logits = network(x)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), logits, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(x)
    assert (half.float() - logits).abs().max() < 0.05 * logits.abs().max().clamp(min=1)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(network(x), logits, atol=1e-4)


def test_dcgan_counts_and_computes_as_the_example_of_pytorch() -> None:
    """github.com/pytorch/examples, dcgan/main.py: 2,765,568 parameters, no norm behind the first layer."""
    network = build("dcgan", "norm=bn", size=64, channels=3, width=64)
    remove_biases(network)
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in [(64, 128), (128, 256), (256, 512)]:
        layers += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    theirs = nn.Sequential(*layers, nn.Conv2d(512, 1, 4, bias=False))
    assert cost(network).parameters == sum(p.numel() for p in theirs.parameters()) == 2_765_568
    theirs.load_state_dict(dict(zip(theirs.state_dict(), network.state_dict().values(), strict=True)))
    x = images(network, 2)
    with torch.no_grad():
        assert torch.allclose(network(x), theirs(2 * x - 1).flatten(), rtol=1e-4, atol=1e-4)


def test_dcgan_for_digits_is_two_halvings_and_a_convolution_of_7x7() -> None:
    network = build("dcgan", width=16)
    assert [tuple(layer.weight.shape) for layer in network.modules() if isinstance(layer, Layer)] == [
        (16, 1, 4, 4),
        (32, 16, 4, 4),
        (1, 32, 7, 7),
    ]
    by_hand = 16 * 16 * 14**2 + 32 * 16 * 16 * 7**2 + 32 * 49
    assert cost(network).macs_per_pixel == pytest.approx(by_hand / 28**2), "for each pixel that it judges"


def test_resnet_counts_as_the_authors_for_cifar_10() -> None:
    """Table 3 of Miyato et al., as sngan_projection/dis_models/snresnet_32.py builds it: no bias behind the sum."""
    ch = 128
    first = (9 * 3 * ch + ch) + (9 * ch * ch + ch) + (3 * ch + ch)
    block = 2 * (9 * ch * ch + ch)
    shortcut = ch * ch + ch
    network = build("resnet", size=32, channels=3, width=ch)
    assert cost(network).parameters == first + (block + shortcut) + 2 * block + ch == 1_053_824


def test_resnet_computes_as_the_authors() -> None:
    network = build("resnet", "activation=relu", size=32, channels=3).double()
    x = 2 * images(network).double() - 1
    blocks = cast(list[DownBlock], list(network.get_submodule("blocks").children()))
    assert [type(block.halve) for block in blocks] == [nn.AvgPool2d] * 2 + [nn.Identity] * 2
    for i, block in enumerate(blocks):
        conv1, conv2 = (layer for layer in block.body.modules() if isinstance(layer, nn.Conv2d))
        y = conv2(conv1(x.relu() if i else x).relu())
        beside = block.shortcut(x)
        x = F.avg_pool2d(y, 2) + F.avg_pool2d(beside, 2) if i < 2 else y + beside
    expected = network.get_submodule("last")(x.relu().sum((2, 3), keepdim=True)).flatten()
    assert torch.allclose(network(images(network).double()), expected, atol=1e-12)


@pytest.mark.parametrize(("size", "sides"), [(28, [14, 7, 7, 7]), (48, [24, 12, 6, 6, 6]), (64, [32, 16, 8, 8, 8])])
def test_resnet_halves_down_to_a_side_of_at_most_8(size: int, sides: list[int]) -> None:
    network = build("resnet", size=size)
    seen: list[int] = []
    for block in network.get_submodule("blocks").children():
        block.register_forward_hook(lambda _, __, output: seen.append(output.shape[-1]))
    network(images(network))
    assert seen == sides


@pytest.mark.parametrize(("channels", "size"), [(3, 28), (1, 36)])
def test_images_of_another_size_are_refused_rather_than_judged_pixel_by_pixel(channels: int, size: int) -> None:
    said = f"takes images of 28x28 in 1 channel, but got some of {size}x{size} in {channels} channel"
    with pytest.raises(UserError, match=said):
        build("dcgan")(torch.rand(2, channels, size, size))
