"""The synthesisers: true to their papers, exact in size, open to every choice."""

import copy
import math
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from upsweep.common.errors import UserError
from upsweep.metrics.checkerboard import of_samples
from upsweep.networks import checkpoints
from upsweep.networks.network import cost, remove_biases
from upsweep.networks.synthesisers import Synthesiser
from upsweep.networks.synthesisers.resnet import ResNet
from upsweep.networks.synthesisers.synthesiser import samples
from upsweep.networks.synthesisers.vae import VAE, kl_to_standard_normal

CONF = Path(__file__).parents[1] / "conf"
GROUPS = ("init", "activation", "norm", "dropout", "upsampler")
SYNTHESISERS = ["dcgan", "resnet", "vae"]
pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def default(name: str) -> dict[str, Any]:
    """The node of a synthesiser of digits under its own name."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        config = compose("train", overrides=["++data.size=28", "++data.channels=1", f"generator={name}"])
    return cast(dict[str, Any], OmegaConf.to_container(config.generator, resolve=True))


@cache
def chosen(group: str, choice: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return OmegaConf.to_container(compose(None, [f"+{group}={choice}"])[group], resolve=True)


def spec(name: str, *changes: str, **arguments: Any) -> dict[str, Any]:
    """The node of a synthesiser of digits, narrow, with some choices ("norm=bn") and arguments replaced."""
    recipe = default(name)["recipe"] | {group: chosen(group, choice) for group, choice in map(parted, changes)}
    return copy.deepcopy({**default(name), "recipe": recipe, "width": 4, "latent": 6, **arguments})


def parted(change: str) -> list[str]:
    return change.split("=")


def build(node: dict[str, Any], seed: int = 0) -> Synthesiser:
    torch.manual_seed(seed)
    network = checkpoints.build(node)
    assert isinstance(network, Synthesiser)
    return network


def latents(network: Synthesiser, n: int = 3) -> Tensor:
    return torch.randn(n, network.latent, generator=torch.Generator().manual_seed(7))


def loss(network: Synthesiser) -> Tensor:
    """Something that every parameter has a part in."""
    images = torch.rand(4, network.channels, network.size, network.size)
    if isinstance(network, VAE):
        made, divergence = network.reconstruct(images)
        return (made - images).square().mean() + divergence
    made = network(latents(network, 4))
    return cast(Tensor, (made - images).square().mean())


# What every synthesiser promises


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 40, 48, 64, 128])
@pytest.mark.parametrize("name", SYNTHESISERS)
@torch.no_grad()
def test_images_have_the_size_that_was_asked_for_and_values_from_0_to_1(name: str, size: int, channels: int) -> None:
    network = build(spec(name, size=size, channels=channels, width=2))
    images = network(100 * latents(network))
    assert images.shape == (3, channels, size, size) and images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert (network.size, network.channels, network.latent, network.stride) == (size, channels, 6, 2)


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_the_output_is_tanh_from_0_to_1(name: str) -> None:
    network = build(spec(name)).double().eval()
    z = latents(network).double()
    expected = (torch.tanh(network.decoder(z[:, :, None, None])) + 1) / 2
    assert torch.allclose(network(z), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_the_example_is_always_the_same_latent_and_a_latent_always_the_same_image(name: str) -> None:
    network = build(spec(name)).eval()
    torch.manual_seed(1)
    first = network.example(3, 5)
    torch.manual_seed(2)
    assert first.shape == (1, 6) and torch.equal(first, network.example(40, 1))
    z = latents(network)
    assert torch.equal(network(z), network(z))
    assert torch.allclose(network(z)[1:2], network(z[1:2]), atol=1e-6), "in evaluation, no image sees another"


def test_samples_of_a_network_in_half_precision_are_float32_and_leave_its_mode() -> None:
    network = build(spec("dcgan"))
    z = latents(network, 5)
    expected = samples(network, z, batch=2)
    made = samples(network.bfloat16(), z, batch=2)
    assert network.training and made.dtype == torch.float32 and (made - expected).abs().max() < 0.05


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_what_it_cannot_make_is_refused_in_one_sentence(name: str) -> None:
    for wrong, words in [
        ({"size": 30}, ["data.size=30", "28, 32, 48, 64, 128"]),
        ({"size": 7}, ["data.size=7"]),
        ({"size": 0}, ["data.size=0"]),
        ({"size": 44}, ["data.size=44"]),
        ({"channels": 2}, ["generator.channels=2", "1", "3"]),
        ({"width": 0}, ["generator.width=0 must be at least 1"]),
        ({"latent": 0}, ["generator.latent=0 must be at least 1"]),
    ]:
        with pytest.raises(UserError) as refusal:
            build(spec(name, **wrong))
        said = str(refusal.value)
        assert all(word in said for word in words), said
        assert said.endswith(".") and "\n" not in said


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", SYNTHESISERS)
def test_every_choice_trains_every_parameter(name: str, group: str) -> None:
    for file in sorted((CONF / group).glob("*.yaml")):
        network = build(spec(name, f"{group}={file.stem}")).train()
        loss(network).backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), (file.stem, key)


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = build(spec(name, "norm=none", "activation=elu", "init=he")).train()
    loss(network).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), key


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_norm_and_dropout_stand_in_front_of_the_output_and_never_behind(name: str) -> None:
    network = build(spec(name, "norm=bn", "dropout=p50")).train()
    ran: list[nn.Module] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: ran.append(module))
    network(latents(network))
    layers = [i for i, leaf in enumerate(ran) if isinstance(leaf, nn.Conv2d | nn.ConvTranspose2d)]
    others = [i for i, leaf in enumerate(ran) if isinstance(leaf, nn.BatchNorm2d | nn.Dropout)]
    assert others and max(others) < layers[-1]


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_bfloat16_channels_last_and_compilation_agree_with_float32(name: str) -> None:
    network = build(spec(name)).eval()
    z = latents(network)
    images = network(z)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(z), images, atol=1e-5)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(network(z), images, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(z)
    assert (half.float() - images).abs().max() < 0.05


@pytest.mark.parametrize("name", SYNTHESISERS)
def test_a_checkpoint_of_it_makes_the_same_images_again(name: str, tmp_path: Path) -> None:
    node = spec(name, "norm=bn")
    network = build(node)
    loss(network.train()).backward()  # so that batch norm has seen something
    weights = {f"generator.{key}": value for key, value in network.state_dict().items()}
    path = tmp_path / "made.ckpt"
    checkpoints.save({"state_dict": weights, checkpoints.KEY: checkpoints.describe(node)}, path)
    checkpoints.save_release(network, node, path.with_suffix(".safetensors"))
    for file in (path, path.with_suffix(".safetensors")):
        loaded = checkpoints.load_generator(file)
        assert isinstance(loaded, Synthesiser)
        assert torch.equal(loaded(latents(network)), network.eval()(latents(network)))
    with pytest.raises(UserError, match="not an upscaler"):
        checkpoints.load_upscaler(path)


def test_a_checkpoint_that_claims_another_size_or_one_that_is_absurd_is_refused(tmp_path: Path) -> None:
    node = spec("dcgan")
    weights = {f"generator.{key}": value for key, value in build(node).state_dict().items()}
    path = tmp_path / "made.ckpt"
    for claim, words in [
        ({"size": 32}, "does not fit the generator"),
        ({"size": 1792, "width": 2048}, "does not fit the generator"),
        ({"size": 30}, "describes a generator that cannot be built"),
        ({"size": 4096}, "out of range"),
        ({"latent": 1_000_000}, "out of range"),
    ]:
        checkpoints.save({"state_dict": weights, checkpoints.KEY: checkpoints.describe(node | claim)}, path)
        with pytest.raises(UserError, match=words):
            checkpoints.load_generator(path)


# True to their papers


def test_dcgan_counts_and_computes_as_the_example_of_pytorch() -> None:
    """github.com/pytorch/examples, dcgan/main.py: 3,576,704 parameters."""
    network = build(spec("dcgan", size=64, channels=3, width=64, latent=100))
    remove_biases(network)
    layers: list[nn.Module] = []
    for a, b, stride, padding in [(100, 512, 1, 0), (512, 256, 2, 1), (256, 128, 2, 1), (128, 64, 2, 1)]:
        layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    theirs = nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), nn.Tanh())
    assert cost(network).parameters == sum(p.numel() for p in theirs.parameters()) == 3_576_704
    theirs.load_state_dict(dict(zip(theirs.state_dict(), network.state_dict().values(), strict=True)))
    z = latents(network, 2)
    with torch.no_grad():
        assert torch.allclose(network(z), (theirs(z[:, :, None, None]) + 1) / 2, atol=1e-5)


def test_the_cost_is_that_of_each_layer_by_hand() -> None:
    """64 -> 32 of 7x7, 32 -> 16 from 7x7, 16 -> 1 from 14x14, 4x4 taps each, for 28x28 pixels."""
    network = build(spec("dcgan", width=16, latent=64))
    by_hand = 64 * 32 * 49 + 32 * 16 * 16 * 7**2 + 16 * 1 * 16 * 14**2
    assert cost(network).macs_per_pixel == pytest.approx(by_hand / 28**2)
    with_norm_and_biases = 64 * 32 * 49 + 32 * 16 * 16 + 16 * 16 + (32 + 16 + 1) + 2 * (32 + 16)
    assert cost(network).parameters == with_norm_and_biases


def test_resnet_counts_as_the_authors_for_cifar_10() -> None:
    """Table 3 of Miyato et al., as the authors build it: sngan_projection, gen_models/resnet_32.py."""
    ch = 256
    dense = 128 * 4 * 4 * ch + 4 * 4 * ch
    block = 2 * (2 * ch) + 2 * (9 * ch * ch + ch) + (ch * ch + ch)
    last = 2 * ch + 9 * ch * 3 + 3
    network = build(spec("resnet", size=32, channels=3, width=ch, latent=128))
    assert sum(p.numel() for p in network.parameters()) == dense + 3 * block + last == 4_276_739


def test_resnet_computes_as_the_authors() -> None:
    """Dense and reshaped; blocks that enlarge before both convolutions; norm, activation, convolution, tanh."""
    network = build(spec("resnet", size=32, channels=3)).double().eval()
    assert isinstance(network, ResNet)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-1, 1)
    z = latents(network).double()
    dense, *blocks, last = list[Any](network.decoder.children())
    x = F.linear(z, dense[0].weight.flatten(1), dense[0].bias).reshape(3, 4, 4, 4)
    for block in blocks:
        (norm1, _, resize), (norm2, _, conv2) = (part.children() for part in block.body)
        conv1, shortcut = resize[1], block.shortcut[0]
        large = F.interpolate(x, scale_factor=2)
        y = conv1(F.interpolate(norm1(x).relu(), scale_factor=2))
        x = conv2(norm2(y).relu()) + shortcut(large)
    norm, _, conv = last.children()
    assert torch.allclose(network(z), (torch.tanh(conv(norm(x).relu())) + 1) / 2, atol=1e-12)


@pytest.mark.parametrize("name", ["dcgan", "vae"])
def test_the_projection_of_the_latent_keeps_its_variance(name: str) -> None:
    """He et al. 2015: through a layer of N(0, 2 / fan_in), fan_in being the latent, the variance doubles."""
    network = build(spec(name, "init=he", "norm=none", width=64, latent=64))
    project = cast(Any, network.decoder)[0].layer
    with torch.no_grad():
        features = project(latents(network, 256)[:, :, None, None])
    assert features.shape == (256, 128, 7, 7)
    assert features.square().mean().item() == pytest.approx(2, rel=0.1)


def test_icnr_makes_phases_of_upsamplers_alike_and_not_the_pixels_of_the_first_features() -> None:
    network = build(spec("resnet", "init=icnr", "upsampler=subpixel"))
    with torch.no_grad():
        features = cast(Any, network.decoder)[0](latents(network)[:, :, None, None])
    assert features.shape[-2:] == (7, 7) and (features.std((2, 3)) > 0.1).all()


# The VAE


def test_the_divergence_is_that_of_torch_distributions_and_of_an_integral() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(5, 7, dtype=torch.float64, generator=generator) for _ in range(2))
    found = kl_to_standard_normal(mean, log_variance)
    q, p = Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), torch.ones_like(mean))
    assert torch.allclose(found, kl_divergence(q, p).sum(1), rtol=1e-12)
    z = torch.linspace(-25, 25, 20_001, dtype=torch.float64)[:, None, None]
    integrand = q.log_prob(z).exp() * (q.log_prob(z) - p.log_prob(z))
    assert torch.allclose(found, torch.trapezoid(integrand, z.flatten(), dim=0).sum(1), rtol=1e-6)
    assert torch.equal(kl_to_standard_normal(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2))


@pytest.mark.parametrize(("weight", "channels", "size"), [(1.0, 1, 28), (4.0, 3, 32), (0.0, 1, 28)])
def test_the_divergence_of_a_batch_is_a_mean_over_images_and_their_values(
    weight: float, channels: int, size: int
) -> None:
    network = build(spec("vae", size=size, channels=channels, latent=5, kl_weight=weight))
    assert isinstance(network, VAE)
    last = cast(nn.Conv2d, network.encoder[-1])
    assert last.bias is not None
    with torch.no_grad():  # every image is encoded as N(0.5, e^2)
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.5] * 5 + [2.0] * 5))
    made, divergence = network.reconstruct(torch.rand(3, channels, size, size))
    assert made.shape == (3, channels, size, size)
    of_a_latent = 0.5 * (0.5**2 + math.e**2 - 1 - 2)
    assert divergence.item() == pytest.approx(weight * 5 * of_a_latent / (channels * size**2), rel=1e-5)


def test_the_divergence_in_half_precision_is_that_of_float32() -> None:
    network = build(spec("vae", latent=5))
    assert isinstance(network, VAE)
    last = cast(nn.Conv2d, network.encoder[-1])
    assert last.bias is not None
    with torch.no_grad():  # every image is encoded as N(0, e^0.0625), which bfloat16 knows exactly
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0] * 5 + [0.0625] * 5))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, divergence = network.reconstruct(torch.rand(3, 1, 28, 28))
    of_a_latent = 0.5 * (math.exp(0.0625) - 1 - 0.0625)
    assert divergence.item() == pytest.approx(network.kl_weight * 5 * of_a_latent / 28**2, rel=1e-3)


def test_a_reconstruction_decodes_latents_of_the_mean_and_variance_that_were_encoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = build(spec("vae", latent=5)).eval()
    assert isinstance(network, VAE)
    images = torch.rand(200, 1, 28, 28)
    seen: list[Tensor] = []

    def decode(_: VAE, latents: Tensor) -> Tensor:
        seen.append(latents)
        return latents

    monkeypatch.setattr(VAE, "forward", decode)
    with torch.no_grad():
        for _ in range(50):
            network.reconstruct(images)
        mean, log_variance = network.encode(images)
    drawn = torch.stack(seen)
    scores = (drawn - mean) / (log_variance / 2).exp()
    assert scores.mean().abs() < 0.02 and scores.std().item() == pytest.approx(1, abs=0.02)
    assert (scores.mean(0).square().mean() * 50).item() == pytest.approx(1, abs=0.15), "around each image's own mean"


def test_a_negative_weight_of_the_divergence_is_refused() -> None:
    with pytest.raises(UserError, match=r"generator\.kl_weight=-1 must be at least 0"):
        build(spec("vae", kl_weight=-1))


# The checkerboard of samples


def test_a_checkerboard_that_all_samples_share_is_found_at_its_size_and_one_that_changes_sign_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(4000, 1, 28, 28, generator=generator)
    planted = torch.zeros(28, 28)
    planted[::2, ::2] = 0.1
    expected = 0.1 * math.sqrt(3) / 4  # of four phases one is 0.1 higher
    assert of_samples(0.5 + noise + planted, 2) == pytest.approx(expected, rel=0.05)
    sign = torch.randint(2, (4000, 1, 1, 1), generator=generator) * 2 - 1
    assert of_samples(0.5 + noise + sign * planted, 2) < 0.1 * expected
    border = torch.zeros(28, 28)
    border[:7:2] = border[21::2] = 1
    assert of_samples(0.5 + noise + border, 2) < 0.1 * expected, "the border is left out"


@pytest.mark.parametrize("size", [28, 30, 32, 33, 48])
def test_the_middle_half_starts_at_a_phase_whatever_the_size(size: int) -> None:
    board = (torch.arange(size)[:, None] + torch.arange(size)) % 2
    assert of_samples(board.expand(2, 3, size, size).float(), 2) == pytest.approx(0.5)


def test_an_untrained_deconvolution_makes_a_checkerboard_and_nearest_and_convolution_far_less() -> None:
    found = {}
    for upsampler in ("deconv", "resize"):
        network = build(spec("dcgan", "init=he", f"upsampler={upsampler}", width=8)).eval()
        with torch.no_grad():
            found[upsampler] = of_samples(network(torch.randn(500, 6)), network.stride)
    assert found["resize"] < 0.5 * found["deconv"]
