"""An objective is given what its `forward` names: the LR image, the batch, the generator's inner features."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small_duel import SIZES, adversary, small_duel
from tests.small_job import RECIPE, TRAINER, small_job
from torch import Tensor, nn
from torch.nn import functional as F

from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.objectives.asking import Taps, asked
from upsweep.objectives.weighted import WeightedSum
from upsweep.runs.layout import LAST
from upsweep.tasks.super_resolution.patches import Patch
from upsweep.training.job import train

VAE = {"_target_": "upsweep.networks.synthesisers.vae.VAE", "recipe": RECIPE, "latent": 4, **SIZES}
ONCE = {**TRAINER, "max_epochs": 1, "limit_val_batches": 1}


class Consistent(nn.Module):
    """SR, shrunk, is to be the LR image."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def forward(self, made: Tensor, wanted: Tensor, given: Tensor, batch: Any) -> Tensor:
        self.seen.append({"given": given, "batch": batch})
        return F.mse_loss(made, wanted) + F.mse_loss(F.avg_pool2d(made, 2), given)


class Quiet(nn.Module):
    taps = ("convs.0",)

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def forward(self, made: Tensor, wanted: Tensor, features: dict[str, Tensor]) -> Tensor:
        (found,) = features.values()
        self.shapes.append(found.shape)
        return F.mse_loss(made, wanted) + found.square().mean()


class Perceptual(nn.Module):
    """A network that nobody trains, in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.net = nn.Sequential(self.first, nn.BatchNorm2d(2)).eval().requires_grad_(False)
        self.modes: set[bool] = set()

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        self.modes.add(self.net.training)
        return F.mse_loss(self.net(made), self.net(wanted))


class Strange(nn.Module):
    def forward(self, made: Tensor, wanted: Tensor, depth: Tensor) -> Tensor:
        return depth


def test_losses_of_torch_and_ones_with_defaults_of_their_own_ask_for_nothing() -> None:
    assert asked(nn.L1Loss()) == asked(nn.SmoothL1Loss()) == asked(Perceptual()) == ()
    assert asked(Consistent()) == ("given", "batch")


def test_what_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(UserError, match=r"Strange asks for depth: .* may ask for given, batch, features besides"):
        asked(Strange())
    with pytest.raises(UserError, match="asks for target"):
        asked(nn.CosineEmbeddingLoss())
    with pytest.raises(UserError, match=r"has no part nowhere; it has 0\."):
        Taps(nn.Sequential(nn.ReLU()), ("nowhere",))


def test_a_weighted_sum_hands_on_what_each_term_asks_for() -> None:
    made, wanted, given = torch.rand(3, 1, 1, 4, 4).unbind()
    both = WeightedSum({"l1": nn.L1Loss(), "lr": Consistent(), "quiet": Quiet()}, {"l1": 1.0, "lr": 2.0, "quiet": 0.0})
    assert (both.asks, both.taps) == (("given", "batch", "features"), ("convs.0",))
    found = both(made, wanted, given=given[..., :2, :2], batch=None, features={"convs.0": made})
    consistency = F.mse_loss(F.avg_pool2d(made, 2), given[..., :2, :2])
    assert found == pytest.approx(float(F.l1_loss(made, wanted) + 2 * (F.mse_loss(made, wanted) + consistency)))


def test_it_sees_the_lr_image_and_the_batch(tmp_path: Path, cache: Path) -> None:
    objective = Consistent()
    train(small_job(tmp_path, cache, objective=objective, trainer=ONCE))
    for seen in objective.seen:
        assert isinstance(seen["batch"], Patch) and seen["given"] is seen["batch"].lr


def test_it_sees_the_generators_features_but_those_of_a_validation(tmp_path: Path, cache: Path) -> None:
    objective = Quiet()
    train(small_job(tmp_path, cache, objective=objective, trainer={**ONCE, "max_epochs": 2}))
    assert set(objective.shapes) == {torch.Size([4, 4, 8, 8])} and len(objective.shapes) == 6


def test_against_an_adversary_too(tmp_path: Path, cache: Path) -> None:
    class Seen(nn.Module):
        def forward(self, made: Tensor, wanted: Tensor, given: Tensor) -> Tensor:
            assert given.shape[0] == len(made)
            return F.mse_loss(made, wanted)

    job = small_duel(tmp_path, cache, generator=VAE, against=adversary(), objective=Seen(), trainer=ONCE)
    assert train(job).state == "finished"


def test_a_network_within_it_is_neither_trained_nor_saved_and_keeps_its_mode(tmp_path: Path, cache: Path) -> None:
    objective = Perceptual()
    before = objective.first.weight.clone()
    train(small_job(tmp_path, cache, objective=objective, trainer=ONCE))
    assert torch.equal(objective.first.weight, before) and objective.modes == {False}
    assert not [
        n for n in checkpoints.read(tmp_path / LAST)["state_dict"] if n.endswith(("weight", "bias")) and "obj" in n
    ]
    again = Perceptual()
    kept = again.first.weight.clone()
    longer = {**ONCE, "max_epochs": 2}
    assert train(small_job(tmp_path, cache, objective=again, trainer=longer, resume=True)).state == "finished"
    assert torch.equal(again.first.weight, kept)
