"""What is said of duels: what is measured is true, the sick are found, the healthy are left alone."""

import math
import statistics
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small_duel import DISCRIMINATOR, GENERATOR, NORMED, small_duel
from tests.small_job import TRAINER
from torch import Tensor, nn

from upsweep.data.sources import Digits
from upsweep.networks import checkpoints
from upsweep.networks.network import Network
from upsweep.objectives.adversarial.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from upsweep.objectives.adversarial.penalties import Penalties
from upsweep.runs.duels import Duel, Norms, sentences
from upsweep.runs.verdicts import read_sentences
from upsweep.tasks.generation.data import ImageData
from upsweep.tasks.generation.task import few_of
from upsweep.tasks.task import Few
from upsweep.training.diagnoses import Diagnoses
from upsweep.training.duels import above, energy, error_of_a_guess, look
from upsweep.training.job import train

QUIET: dict[str, Any] = {**NORMED, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}}
PLAIN: dict[str, Any] = {**QUIET, "norm": {"_target_": "upsweep.blocks.norm.Norm"}}
HEALTHY = Duel(epoch=1, diversity=0.9, energy=0.1, told_apart=0.99, gradient=2.0, by_heart=0.55, by_heart_error=0.03)
LOSS = NonSaturating()


def generator(recipe: dict[str, Any] = QUIET, width: int = 4) -> Network:
    torch.manual_seed(0)
    return checkpoints.build({**GENERATOR, "recipe": recipe, "width": width})


def discriminator(recipe: dict[str, Any] = QUIET, width: int = 8) -> Any:
    torch.manual_seed(1)
    return checkpoints.build({**DISCRIMINATOR, "recipe": recipe, "width": width})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    cache_dir = str(tmp_path_factory.mktemp("cache"))
    data = ImageData(source=Digits(), size=28, channels=1, latent=4, seed=1, cache_dir=cache_dir, flip=False)
    data.setup()
    return data


@pytest.fixture(scope="module")
def few(data: ImageData) -> Few:
    return few_of(data, 128)


def found(duels: list[Duel]) -> set[str]:
    return {sentence.problem for sentence in sentences(duels) if sentence.found}


def taught(
    network: nn.Module,
    made: Tensor,
    real: Tensor,
    steps: int,
    loss: AdversarialLoss = LOSS,
    penalties: Penalties | None = None,
) -> None:
    """A discriminator that learns alone to tell these images apart."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, (0.5, 0.999))
    for a, b in zip(batches(real, steps), batches(made, steps), strict=True):
        optimizer.zero_grad()
        (loss.discriminator(network(a), network(b)) + (penalties or Penalties())(network, a, b)).backward()
        optimizer.step()


def batches(images: Tensor, steps: int) -> Iterator[Tensor]:
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        yield images[torch.randint(len(images), (32,), generator=random)]


# what is measured


class Mean(nn.Module):
    """A discriminator whose logit is a multiple of the mean: all of it is known."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.flatten(1).mean(1)


class Grey(nn.Module):
    """A generator of grey images, as bright as the latent's first number."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0, None, None, None].expand(-1, 1, 4, 4)


def test_every_number_is_that_of_a_duel_in_closed_form() -> None:
    bright = torch.tensor([0.2, 0.4, 0.6])[:, None, None, None].expand(-1, 1, 4, 4)
    few = Few(torch.tensor([[0.1], [0.3], [0.5]]), bright + 0.2, bright)
    duel = look(few, Grey(), 3, (Mean(10.0), Wasserstein()))  # type: ignore[arg-type]
    assert duel.epoch == 3 and duel.norms is None
    assert duel.diversity == pytest.approx(1)
    # all images are grey, and 0.1 apart is 0.4 in 16 pixels: the sum of |x - y| is 1.9 over 9, of |x - x'| 0.8 over 3
    assert duel.energy == pytest.approx((2 * 1.9 / 9 - 2 * 0.8 / 3) / (0.8 / 3))
    assert duel.told_apart == pytest.approx(6 / 9)  # of 0.2, 0.4, 0.6 against 0.1, 0.3, 0.5
    assert duel.by_heart == pytest.approx((6 + 2 / 2) / 9)  # of 0.4, 0.6, 0.8 against 0.2, 0.4, 0.6: two are as large
    assert duel.by_heart_error == pytest.approx(math.sqrt(7 / (12 * 9)))
    assert duel.gradient == pytest.approx(10 / 4)  # 10 / 16 at each of 16 pixels
    alone = look(few, Grey(), 1)  # type: ignore[arg-type]
    assert alone == Duel(epoch=1, diversity=duel.diversity, energy=duel.energy)


def test_the_error_of_a_guess_is_that_of_all_orders_of_as_many_logits() -> None:
    logits = torch.arange(5.0)
    chances = [
        above(logits[list(some)], logits[[i for i in range(5) if i not in some]]) for some in combinations(range(5), 2)
    ]
    assert statistics.fmean(chances) == pytest.approx(0.5)
    assert statistics.pstdev(chances) == pytest.approx(error_of_a_guess(2, 3))


def test_real_images_are_no_further_from_real_ones_than_by_chance_and_noise_is(data: ImageData) -> None:
    some, others = (data.training_images()[i::20].float() / 255 for i in (0, 1))
    assert abs(energy(some, others)) < 0.05
    assert energy(torch.rand_like(some), others) > 0.5


def test_a_norm_is_held_against_the_statistics_of_its_batch(few: Few) -> None:
    network = generator()
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    network.train()
    for norm in norms:
        norm.momentum = 1.0  # takes those of the batch as they are
    with torch.no_grad():
        network(few.latent)
    duel = look(few, network, 1)
    assert duel.norms is not None and duel.norms.offset < 1e-3 and duel.norms.ratio == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        norms[1].running_var.mul_(9)  # type: ignore[union-attr]
        norms[1].running_mean.add_(norms[1].running_var.div(9).sqrt())  # type: ignore[union-attr]
    (name,) = [n for n, m in network.named_modules() if m is norms[1]]
    said = look(few, network, 1).norms
    assert said is not None and said.name == name
    assert (said.offset, said.ratio) == pytest.approx((1, 3), rel=0.01)


def test_a_look_on_one_of_several_gpus_sees_the_same_and_asks_no_other(
    few: Few, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their batch norms are SyncBatchNorm, which wait for all ranks; only the first one looks."""
    network, judge = generator(), discriminator()
    expected = look(few, network, 1, (judge, LOSS))
    for each in (network, judge):
        nn.SyncBatchNorm.convert_sync_batchnorm(each)
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", lambda *_: pytest.fail("it would wait for ever"))
    assert look(few, network, 1, (judge, LOSS)) == expected
    assert expected.norms is not None


def test_a_look_changes_nothing_and_draws_nothing(few: Few) -> None:
    network, judge = generator(), discriminator({**NORMED, "norm": {"_target_": "upsweep.blocks.norm.SpectralNorm"}})
    before = [{k: v.clone() for k, v in n.state_dict().items()} for n in (network, judge)]
    torch.manual_seed(3)
    first = look(few, network, 1, (judge, LOSS))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert first == look(few, network, 1, (judge, LOSS))
    for network_, state in zip((network, judge), before, strict=True):
        assert network_.training and all(torch.equal(v, state[k]) for k, v in network_.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in network_.parameters())


# the sick


@pytest.mark.parametrize(
    ("loss", "penalties"),
    [
        (NonSaturating(), Penalties()),
        (LeastSquares(), Penalties()),
        (Hinge(), Penalties()),
        (Wasserstein(), Penalties(gradient=10.0)),
        (Relativistic(), Penalties(r1=0.1, r2=0.1)),
    ],
)
def test_a_discriminator_that_learns_alone_is_too_strong_whatever_its_loss(
    few: Few, loss: AdversarialLoss, penalties: Penalties
) -> None:
    network, judge = generator(), discriminator(PLAIN)
    made, looks = network.eval()(few.latent).detach(), [look(few, network, 1, (judge, loss))]
    for epoch in (2, 3):
        taught(judge, made, few.trained_on, 100, loss, penalties)
        looks.append(look(few, network, epoch, (judge, loss)))
    assert looks[-1].told_apart == 1
    assert found(looks[:1]) == set() and "strong discriminator" in found(looks), looks


def test_a_discriminator_that_tells_all_apart_is_no_trouble_while_the_samples_come_nearer() -> None:
    sure = {**vars(HEALTHY), "told_apart": 1.0, "energy": 1.5}
    before, nearer, still = (
        Duel(**{**sure, "epoch": n, "energy": energy}) for n, energy in enumerate((1.5, 1.2, 1.45), 1)
    )
    near = [Duel(**{**sure, "epoch": n, "energy": 0.02}) for n in (1, 2)]
    assert "strong discriminator" in found([before, still])
    assert found([before, nearer]) == found([before]) == found(near) == set()


def test_samples_whose_gradient_has_vanished_accuse_the_discriminator() -> None:
    last = Duel(**{**vars(HEALTHY), "epoch": 9, "told_apart": 1.0, "gradient": 0.01})
    (said, *_) = sentences([HEALTHY, last])
    assert said.found and said.group == "adversary" and "0.005 times that of epoch 1" in said.text
    assert not sentences([last, last])[0].found


def test_a_generator_that_ignores_its_latent_has_collapsed(few: Few) -> None:
    network = generator()
    with torch.no_grad():
        next(p for p in network.parameters() if p.ndim == 4).mul_(1e-4)
    torch.nn.init.ones_(next(m for m in network.modules() if isinstance(m, nn.BatchNorm2d)).running_var)  # type: ignore[arg-type]
    duel = look(few, network, 1)
    assert duel.diversity < 0.1 and "mode collapse" in found([duel])
    (said,) = [s for s in sentences([duel], covered=0.02) if s.problem == "mode collapse"]
    assert "2% of the real images" in said.text and "generator.kl_weight" in said.text


def test_a_discriminator_taught_32_images_knows_them_by_heart_and_one_of_all_does_not(
    data: ImageData, few: Few
) -> None:
    made = generator().eval()(few.latent).detach()
    everything = data.training_images()[::2].float() / 255
    for real, sick in ((few.trained_on[:32], True), (everything, False)):
        judge = discriminator(PLAIN, width=16)
        # made images like real ones: it must know them one by one
        near = (everything[1::7] + 0.05 * torch.randn(everything[1::7].shape)).clamp(0, 1) if sick else made
        taught(judge, near, real, 200)
        duel = look(few._replace(trained_on=real[:128]), generator(), 2, (judge, LOSS))
        assert ("memorising discriminator" in found([duel])) == sick, duel


@pytest.mark.parametrize(("momentum", "sick"), [(1e-4, True), (0.1, False)])
def test_a_momentum_that_is_tiny_leaves_the_statistics_behind(
    tmp_path: Path, data: ImageData, momentum: float, sick: bool
) -> None:
    norm = {"_target_": "upsweep.blocks.norm.BatchNorm", "momentum": momentum}
    small = {
        "_target_": "upsweep.blocks.init.Normal",
        "std": 0.02,
    }  # far from the 1 that a running deviation begins with
    said = diagnosed(tmp_path, data, generator={**GENERATOR, "recipe": {**QUIET, "norm": norm, "init": small}})
    assert said["norm statistics"].found == sick
    assert (said["norm statistics"].group == "norm" and "norm.momentum" in said["norm statistics"].text) or not sick


# whole trainings


def diagnosed(folder: Path, data: ImageData, **changes: Any) -> dict[str, Any]:
    trainer = {**TRAINER, "max_epochs": 3}
    job = small_duel(folder, Path(data.cache_dir), trainer=trainer, **{"patches_per_epoch": 160, **changes})
    job.callbacks.append(Diagnoses(folder, made=64))  # type: ignore[attr-defined]
    assert train(job).state == "finished"
    return {said.problem: said for said in read_sentences(folder)}


def test_a_healthy_duel_is_accused_of_nothing_and_says_so_in_the_end(tmp_path: Path, data: ImageData) -> None:
    said = diagnosed(tmp_path, data, generator={**GENERATOR, "recipe": QUIET})
    assert list(said) == [
        *("vanishing gradients", "strong discriminator", "memorising discriminator"),
        *("mode collapse", "norm statistics", "cost"),
    ]
    assert not any(sentence.found for sentence in said.values())


def test_a_duel_that_goes_on_keeps_what_was_seen(tmp_path: Path, data: ImageData) -> None:
    callback = Diagnoses(tmp_path, made=64)
    job = small_duel(tmp_path, Path(data.cache_dir))
    train(job.__class__(**{**vars(job), "callbacks": [*job.callbacks, callback]}))
    state = callback.state_dict()
    again = Diagnoses(tmp_path)
    again.load_state_dict(state)
    assert len(state["duels"]) == 2 and again.state_dict() == state
    again.forget()
    assert again.state_dict()["duels"] == []
    again.load_state_dict({key: value for key, value in state.items() if key != "duels"})  # of a checkpoint before


def test_of_a_vae_what_has_no_discriminator_is_said(tmp_path: Path, data: ImageData) -> None:
    vae = {**GENERATOR, "_target_": "upsweep.networks.synthesisers.vae.VAE", "recipe": QUIET}
    said = diagnosed(tmp_path, data, generator=vae)
    assert list(said) == ["vanishing gradients", "mode collapse", "norm statistics", "cost"]


def test_a_vae_whose_divergence_costs_too_much_makes_one_image(tmp_path: Path, data: ImageData) -> None:
    # all posteriors are N(0, I), and the decoder learns to leave the latent alone
    vae = {**GENERATOR, "_target_": "upsweep.networks.synthesisers.vae.VAE", "recipe": PLAIN, "kl_weight": 1e4}
    adam = partial(torch.optim.Adam, lr=3e-3)
    said = diagnosed(tmp_path, data, generator=vae, optimizer=adam, patches_per_epoch=1600)
    assert said["mode collapse"].found and "generator.kl_weight" in said["mode collapse"].text


def test_nothing_is_said_of_what_was_not_looked_at() -> None:
    assert sentences([]) == []
    assert found([HEALTHY]) == set()
    assert "norm_offset" in Duel(**{**vars(HEALTHY), "norms": Norms(name="a", offset=0.1, ratio=1.1)}).numbers()
    assert "told_apart" not in Duel(epoch=1, diversity=1.0, energy=0.1).numbers()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("count", "sick"), [(32, True), (5000, False)])
def test_in_a_duel_of_two_few_images_are_known_by_heart_and_thousands_are_not(
    data: ImageData, count: int, sick: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    network = checkpoints.build({**GENERATOR, "recipe": QUIET, "width": 8})
    judge: Any = checkpoints.build({**DISCRIMINATOR, "recipe": QUIET, "width": 8})
    real = data.training_images()[torch.randperm(5000)[:count]].float() / 255
    few = few_of(data, 256)._replace(trained_on=real[:256])
    players = [torch.optim.Adam(n.parameters(), lr, (0.5, 0.999)) for n, lr in ((network, 1e-3), (judge, 5e-4))]
    for batch in batches(real, 900):
        made = network(torch.randn(len(batch), few.latent.shape[1]))
        losses = (lambda: LOSS.generator(None, judge(made))), (lambda: LOSS.discriminator(judge(batch), judge(made)))  # noqa: B023
        for player, loss in zip(players, losses, strict=True):
            made = made if player is players[0] else made.detach()
            player.zero_grad()
            loss().backward()
            player.step()
    duel = look(few, network, 1, (judge, LOSS))
    assert ("memorising discriminator" in found([duel])) == sick, duel
