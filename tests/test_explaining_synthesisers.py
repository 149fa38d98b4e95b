"""Why a synthesiser makes what it makes: walks, layers that are disturbed one by one, and copies that are told."""

import copy
from typing import Any

import pytest
import torch
from tests.small_synthesisers import SYNTHESISER
from torch import nn

from upsweep.common.errors import UserError
from upsweep.explaining.synthesisers import (
    Looks,
    SampleCase,
    TrainedOn,
    effects,
    latent_walks,
    layer_effects,
    nearest_training_images,
    step_lengths,
    walks,
    with_noise,
    without_scale,
    yardstick,
)
from upsweep.metrics.extractors import Random
from upsweep.networks import checkpoints
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.tasks.generation.data import fixed_latents

LOOKS = Looks(latents=8, walks=4, shown=3)
NORM = {"_target_": "upsweep.blocks.norm.BatchNorm"}


def network(**knobs: Any) -> Synthesiser:
    torch.manual_seed(0)
    built = checkpoints.build({**SYNTHESISER, "recipe": {**SYNTHESISER["recipe"], **knobs}}).eval()
    assert isinstance(built, Synthesiser)
    return built


class Flat(Synthesiser):
    """Every pixel of channel c is latent c, as a logit."""

    def __init__(self) -> None:
        super().__init__(28, 1, latent=1)
        self.decoder = nn.Sequential(nn.ConvTranspose2d(1, 1, 28, bias=False))
        nn.init.ones_(next(self.decoder.parameters()))


def test_a_walk_begins_at_a_latent_ends_at_the_next_and_keeps_its_length() -> None:
    latents = nn.functional.normalize(fixed_latents(3, 16), dim=1)
    way = walks(latents, 8)
    assert way.shape == (3, 9, 16)
    torch.testing.assert_close(way[:, 0], latents)
    torch.testing.assert_close(way[:, -1], latents.roll(-1, 0))
    torch.testing.assert_close(way.norm(dim=2), torch.ones(3, 9))


def test_the_length_of_a_step_is_the_mean_change_of_a_pixel_in_grey_levels() -> None:
    shades = torch.tensor([[0.0, 10, 30], [5, 5, 0]]) / 255
    torch.testing.assert_close(
        step_lengths(shades[..., None, None, None].expand(2, 3, 1, 4, 4)), torch.tensor([[10.0, 20], [0, 5]])
    )


def test_noise_has_the_share_of_the_features_own_deviation() -> None:
    net, latents = Flat(), fixed_latents(32, 1)
    layer = net.decoder.get_submodule("0")
    noisy = with_noise(net, layer, latents, Looks(share=0.2))
    logits, plain = (images.double().logit() / 2 for images in (noisy, samples(net, latents)))
    assert float((logits - plain).std()) == pytest.approx(0.2 * float(latents.std(correction=0)), rel=0.02)
    torch.testing.assert_close(with_noise(net, layer, latents, Looks(share=0)), samples(net, latents))
    assert not layer._forward_hooks


def test_a_norm_without_its_scale_and_shift_is_one_that_has_learnt_none() -> None:
    net, latents = network(norm=NORM), fixed_latents(8, 8)
    fresh, norms = samples(net, latents), [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    torch.testing.assert_close(without_scale(net, norms[0], latents), fresh)
    with torch.no_grad():
        norms[0].weight.mul_(3)
        norms[0].bias.add_(1)
    before = copy.deepcopy(net.state_dict())
    assert float((samples(net, latents) - fresh).abs().max()) > 0.01
    torch.testing.assert_close(without_scale(net, norms[0], latents), fresh)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("normed", [True, False])
def test_each_block_of_the_decoder_is_disturbed_alone(normed: bool) -> None:
    net, latents = network(**({"norm": NORM} if normed else {})), fixed_latents(8, 8)
    found = [*effects(net, latents, LOOKS)]
    assert [one.layer for one in found] == ["0", "1"]
    assert all((one.norm is not None) is normed for one in found)
    assert all(float((one.noise - samples(net, latents)).abs().mean()) > 0 for one in found)


def test_the_sections_speak_of_every_network() -> None:
    cases = [SampleCase(name="a", network=network(norm=NORM)), SampleCase(name="b", network=network())]
    walk, layers = latent_walks(cases, LOOKS), layer_effects(cases, LOOKS)
    assert [*walk.figures] == ["a", "b"] and all(set(figures) == {"walk", "jump"} for figures in walk.figures.values())
    assert "without the scale and shift of its norm" in layers.said[0]
    assert layers.said[1].endswith("it has no norm of features that learns.")
    assert min(walk.picture.std(), layers.picture.std()) > 10


def test_a_network_that_always_makes_the_same_image_takes_steps_of_no_length() -> None:
    net = network()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    section = latent_walks([SampleCase(name="collapsed", network=net)], LOOKS)
    assert section.figures["collapsed"]["walk"] == 0


def test_the_yardstick_is_the_median_distance_of_a_training_image_to_another() -> None:
    features = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    slow = sorted(min(float((a - b).norm()) for j, b in enumerate(features) if j != i) for i, a in enumerate(features))
    assert yardstick(features) == pytest.approx(slow[14], rel=1e-4)  # torch's median: the lower one of two


def test_a_copy_is_at_distance_0_and_unknown_training_images_are_said() -> None:
    net, extractor = network(), Random()
    copies = torch.cat([samples(net, fixed_latents(4, 8)), torch.rand(20, 1, 28, 28)])
    training = TrainedOn(copies, extractor(copies), extractor)
    cases = [SampleCase(name="copier", network=net, training=training), SampleCase(name="other", network=net)]
    copier, other = nearest_training_images(cases, LOOKS).said
    assert copier.startswith("copier: a sample is 0.00 times as far") and "0.00 at least (a copy: 0)" in copier
    assert other == "other: its training images are not known, so none are shown."


def test_what_is_of_no_use_is_said_in_a_sentence() -> None:
    for wrong in ({"latents": 1}, {"shown": 0}, {"share": -0.1}):
        with pytest.raises(UserError, match=r"latents\.\w+=-?[\d.]+ must be at least"):
            Looks(**wrong)


def test_images_of_several_channels_are_shown_in_colour() -> None:
    net = checkpoints.build({**SYNTHESISER, "channels": 3}).eval()
    assert isinstance(net, Synthesiser)
    picture = latent_walks([SampleCase(name="rgb", network=net)], LOOKS).picture
    assert (picture.std(axis=2) > 0).any()
