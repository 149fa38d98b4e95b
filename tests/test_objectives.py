"""What the objectives promise: the metric's own figures, gradients that lead to HR, sums as the YAML says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from skimage.metrics import structural_similarity
from torch import nn

from upsweep.common.errors import UserError
from upsweep.imaging.resize import imresize
from upsweep.networks.checkpoints import load_upscaler
from upsweep.networks.wrappers.self_ensemble import SelfEnsemble
from upsweep.objectives.charbonnier import Charbonnier
from upsweep.objectives.distilled import Distilled
from upsweep.objectives.ssim import SSIM
from upsweep.objectives.weighted import WeightedSum

CONF = Path(__file__).resolve().parent.parent / "conf"
NAMES = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))


def images(channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch with structure, and a noisy copy of it, in float32."""
    noise = torch.Generator().manual_seed(0)
    hr = imresize(torch.rand(2, channels, 8, 8, generator=noise), 3).clamp(0, 1)
    return (hr + 0.1 * torch.randn(hr.shape, generator=noise)).clamp(0, 1), hr


def chosen(name: str, *overrides: str) -> nn.Module:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", [f"objective={name}", *overrides])
    objective = instantiate(config.objective, _convert_="all")
    assert isinstance(objective, nn.Module)
    return objective


@pytest.mark.parametrize("name", [name for name in NAMES if "distilled" not in name])  # which may lead to a teacher's
def test_every_objective_is_least_at_hr_and_its_gradient_leads_there(name: str) -> None:
    objective = chosen(name)
    sr, hr = images()
    before = objective(sr, hr)
    assert before.ndim == 0 and before.dtype == torch.float32
    assert objective(hr, hr) < before
    sr.requires_grad_()
    (gradient,) = torch.autograd.grad(objective(sr, hr), sr)
    step = 1e-3 / gradient.abs().max()
    assert objective(sr - step * gradient, hr) < before
    assert torch.isfinite(torch.autograd.grad(objective(hr.requires_grad_(), hr.detach()), hr)[0]).all()


def test_ssim_is_that_of_scikit_image() -> None:
    sr, hr = images()
    expected = [
        structural_similarity(
            a, b, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(sr.double().numpy(), hr.double().numpy(), strict=True)
    ]
    assert SSIM()(sr, hr).item() == pytest.approx(1 - sum(expected) / 2, abs=1e-4)


def test_ssim_is_taken_in_float32_whatever_the_precision_of_the_network() -> None:
    sr, hr = images(1)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = SSIM()(sr.bfloat16(), hr)
    assert coarse.dtype == torch.float32
    assert coarse.item() == pytest.approx(SSIM()(sr.bfloat16().float(), hr).item(), abs=1e-6)


def test_patches_smaller_than_the_window_are_one_sentence() -> None:
    with pytest.raises(UserError, match=r"11x11 pixels.*here are 8x8.*larger patches"):
        SSIM()(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


def test_a_weighted_sum_is_the_sum_of_its_weighted_terms_and_the_weights_are_set_by_name() -> None:
    sr, hr = images(1)
    objective = chosen("l1_ssim", "objective.weights.l1=2", "objective.weights.ssim=0.5")
    expected = 2 * (sr - hr).abs().mean() + 0.5 * SSIM()(sr, hr)
    assert objective(sr, hr).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_term_without_a_weight_is_one_sentence() -> None:
    with pytest.raises(UserError, match="must have the same names"):
        WeightedSum({"l1": nn.L1Loss(), "c": Charbonnier()}, {"l1": 1.0})


@pytest.mark.parametrize("self_ensemble", [False, True])
def test_distillation_is_the_weighted_mean_of_the_errors_against_hr_and_against_the_teacher_s_image(
    self_ensemble: bool,
) -> None:
    sr, hr = images(channels=1)
    lr = imresize(hr, 0.5)
    objective = chosen("distilled", "objective.weight=0.25", f"objective.self_ensemble={self_ensemble}").train()
    teacher = load_upscaler("deconvnet_x2")
    with torch.no_grad():
        taught = (SelfEnsemble(teacher) if self_ensemble else teacher)(lr)
    expected = 0.75 * (sr - hr).square().mean() + 0.25 * (sr - taught).square().mean()
    assert objective(sr.requires_grad_(), hr, lr).item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(objective(sr, hr, lr), sr)
    wanted = 2 * (sr - 0.75 * hr - 0.25 * taught) / sr.numel()
    assert torch.allclose(gradient, wanted, atol=1e-9), "towards the mean of HR and what the teacher makes"


def test_the_teacher_does_not_learn_and_stays_as_it_is_in_training() -> None:
    objective = Distilled(nn.MSELoss(), "fsrcnn_x2").train()
    assert objective.training and objective.of.training and not objective.teacher.training
    assert not any(parameter.requires_grad for parameter in objective.parameters())


def test_a_smaller_level_of_a_pyramid_is_held_to_the_teacher_s_image_shrunk() -> None:
    lr, level = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 16, 16)
    with torch.no_grad():
        taught = imresize(load_upscaler("fsrcnn_x4")(lr), 0.5)
    objective = Distilled(nn.MSELoss(), "fsrcnn_x4", weight=1.0)
    expected = (level - taught).square().mean().item()
    assert objective(level, level, lr).item() == pytest.approx(expected, rel=1e-5)


class Consistent(nn.Module):
    """An objective that asks for what the network took."""

    taps = ("convs.0",)

    def forward(self, made: torch.Tensor, wanted: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
        return (made - wanted).abs().mean() + (imresize(made, 0.5) - given).abs().mean()


def test_what_the_objective_within_asks_for_is_given_to_it() -> None:
    sr, hr = images(channels=1)
    lr = imresize(hr, 0.5)
    objective = Distilled(Consistent(), "fsrcnn_x2", weight=0.0)
    assert objective.asks == ("given",) and objective.taps == ("convs.0",)
    assert objective(sr, hr, given=lr).item() == pytest.approx(Consistent()(sr, hr, lr).item(), rel=1e-6)


@pytest.mark.parametrize("said", [{"scale": 3}, {"channels": 3}])
def test_a_teacher_of_another_scale_or_other_channels_is_one_sentence(said: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="The teacher fsrcnn_x2 is one for scale=2 and channels=1, and the generator"):
        Distilled(nn.MSELoss(), "fsrcnn_x2", **said)


def test_what_is_no_teacher_is_one_sentence() -> None:
    with pytest.raises(UserError, match="There is no checkpoint at deconvnet_x5"):
        Distilled(nn.MSELoss(), "deconvnet_x5")
    with pytest.raises(UserError, match=r"objective.weight=1.5 must be from 0 to 1\."):
        Distilled(nn.MSELoss(), "fsrcnn_x2", weight=1.5)
