"""What adversarial losses and penalties promise: the papers' closed forms, slopes as a slow reference finds them."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.objectives.adversarial.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    Relativistic,
    Wasserstein,
)
from upsweep.objectives.adversarial.penalties import Look, Penalties, slopes
from upsweep.objectives.bce import BCE

LOSSES: list[AdversarialLoss] = [NonSaturating(), LeastSquares(), Hinge(), Wasserstein(), Relativistic()]
NAMED = partial(pytest.mark.parametrize, argvalues=LOSSES, ids=lambda loss: type(loss).__name__)
REAL = torch.tensor([2.0, -0.5, 0.25], dtype=torch.float64)
MADE = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of_generator(loss: AdversarialLoss, real: Tensor, made: Tensor) -> Tensor:
    return loss.generator(real if loss.compares else None, made)


# losses


def test_the_non_saturating_loss_is_the_cross_entropy_of_a_sigmoid() -> None:
    real, made = (torch.sigmoid(x).tolist() for x in (REAL, MADE))
    expected = mean([-math.log(p) for p in real]) + mean([-math.log(1 - p) for p in made])
    assert NonSaturating().discriminator(REAL, MADE).item() == pytest.approx(expected, rel=1e-12)
    assert NonSaturating().generator(None, MADE).item() == pytest.approx(mean([-math.log(p) for p in made]), rel=1e-12)


def test_the_optimal_discriminator_pays_what_the_jensen_shannon_divergence_leaves() -> None:
    # Goodfellow et al. 2014, theorem 1: at D = p / (p + q) its loss is log 4 - 2 JSD(p, q)
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.125, 0.125, 0.75])
    counts = 8
    drawn = [torch.repeat_interleave((p / q).log(), (counts * share).long()) for share in (p, q)]
    middle = (p + q) / 2
    jsd = sum((x * (x / middle).log()).sum().item() for x in (p, q)) / 2
    assert NonSaturating().discriminator(*drawn).item() == pytest.approx(math.log(4) - 2 * jsd, rel=1e-6)


def test_least_squares_are_half_the_squares_to_1_and_to_0() -> None:
    expected = mean([(x - 1) ** 2 for x in REAL.tolist()]) / 2 + mean([x**2 for x in MADE.tolist()]) / 2
    assert LeastSquares().discriminator(REAL, MADE).item() == pytest.approx(expected, rel=1e-12)
    expected = mean([(x - 1) ** 2 for x in MADE.tolist()]) / 2
    assert LeastSquares().generator(None, MADE).item() == pytest.approx(expected, rel=1e-12)


def test_the_hinge_forgets_what_lies_beyond_its_margin() -> None:
    assert Hinge().discriminator(REAL, MADE).item() == pytest.approx((0 + 1.5 + 0.75) / 3 + (0 + 1.5 + 4) / 3)
    assert Hinge().discriminator(torch.tensor([1.0, 9.0]), torch.tensor([-1.0, -9.0])) == 0
    assert Hinge().generator(None, MADE).item() == pytest.approx(-2.5 / 3)


def test_wasserstein_is_the_difference_of_the_means() -> None:
    assert Wasserstein().discriminator(REAL, MADE).item() == pytest.approx((2.5 - 1.75) / 3)
    assert Wasserstein().generator(None, MADE).item() == pytest.approx(-2.5 / 3)


def test_the_relativistic_loss_sets_each_made_image_against_the_real_one_of_its_place() -> None:
    pairs = list(zip(REAL.tolist(), MADE.tolist(), strict=True))
    for_d, for_g = (mean([math.log1p(math.exp(sign * (m - r))) for r, m in pairs]) for sign in (1, -1))
    assert Relativistic().discriminator(REAL, MADE).item() == pytest.approx(for_d, rel=1e-12)
    assert Relativistic().generator(REAL, MADE).item() == pytest.approx(for_g, rel=1e-12)
    # an offset of all logits says nothing about which image is real
    assert Relativistic().discriminator(REAL + 5, MADE + 5).item() == pytest.approx(for_d, rel=1e-12)


@NAMED("loss")
def test_the_players_pull_the_logits_of_made_images_apart(loss: AdversarialLoss) -> None:
    real, made = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    for_real, for_made = torch.autograd.grad(loss.discriminator(real, made), (real, made))
    (for_generator,) = torch.autograd.grad(of_generator(loss, real, made), made)
    assert (for_real <= 0).all() and (for_made >= 0).all() and (for_real - for_made < 0).all()
    assert (for_generator < 0).all()


@NAMED("loss")
def test_a_loss_is_a_mean_so_that_the_size_of_the_batch_does_not_matter(loss: AdversarialLoss) -> None:
    for of in (loss.discriminator, partial(of_generator, loss)):
        assert of(REAL.repeat(3), MADE.repeat(3)).item() == pytest.approx(of(REAL, MADE).item(), rel=1e-12)


@NAMED("loss")
def test_logits_of_any_size_give_finite_losses_and_gradients(loss: AdversarialLoss) -> None:
    real, made = (torch.tensor([-1e4, 1e4, 0.0], requires_grad=True) for _ in range(2))
    total = loss.discriminator(real, made) + of_generator(loss, real, made.flip(0))
    assert total.isfinite() and all(g.isfinite().all() for g in torch.autograd.grad(total, (real, made)))


# penalties


def linear(weights: Tensor) -> Look:
    """A discriminator whose logit is w . y + 3, y = 2 x - 1 the image as a network sees it."""
    return lambda x: ((2 * x - 1) * weights).flatten(1).sum(1) + 3


def quadratic(x: Tensor) -> Tensor:
    """The logit |y|^2 / 2, whose slope is y."""
    return (2 * x - 1).square().flatten(1).sum(1) / 2


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_of_a_linear_discriminator_every_penalty_is_known() -> None:
    weights = some(1, 4, 4)
    look, real, made = linear(weights), some(3, 1, 4, 4, seed=1), some(3, 1, 4, 4, seed=2)
    squared = weights.square().sum().item()
    assert slopes(look, real).tolist() == pytest.approx([squared] * 3)
    assert Penalties(r1=0.5)(look, real, made).item() == pytest.approx(0.25 * squared)
    assert Penalties(r2=0.5)(look, real, made).item() == pytest.approx(0.25 * squared)
    assert Penalties(gradient=10)(look, real, made).item() == pytest.approx(10 * (math.sqrt(squared) - 1) ** 2)
    unit = linear(weights / math.sqrt(squared))
    assert Penalties(gradient=10)(unit, real, made).item() == pytest.approx(0, abs=1e-12)


def test_of_a_quadratic_discriminator_r1_looks_at_real_images_and_r2_at_made_ones() -> None:
    real, made = some(3, 1, 4, 4, seed=1), some(3, 1, 4, 4, seed=2)
    at_real, at_made = ((2 * x - 1).square().flatten(1).sum(1).mean().item() for x in (real, made))
    assert at_real != pytest.approx(at_made, rel=1e-3)
    assert Penalties(r1=3)(quadratic, real, made).item() == pytest.approx(1.5 * at_real)
    assert Penalties(r2=3)(quadratic, real, made).item() == pytest.approx(1.5 * at_made)


def test_the_gradient_penalty_is_taken_evenly_between_real_and_made_images() -> None:
    # One pixel, from y = -1 (real) to 1 (made): the slope there is y, and the mean of (|y| - 1)^2 over it is 1 / 3.
    torch.manual_seed(0)
    count = 200_000
    found = Penalties(gradient=1)(quadratic, torch.zeros(count, 1, 1, 1), torch.ones(count, 1, 1, 1))
    assert found.item() == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / count))


def test_a_penalty_under_autocast_is_that_of_float32() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))

    def look(images: Tensor) -> Tensor:
        logits: Tensor = network(images.flatten(1)).flatten()
        return logits.float()

    real, made = torch.rand(2, 8, 1, 4, 4)
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)  # of the places between two images
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(Penalties(r1=1, r2=2, gradient=3)(look, real, made.bfloat16()).item())
    assert found[0] == found[1]


def test_penalties_add_and_a_weight_of_0_leaves_one_out() -> None:
    real, made = some(3, 1, 4, 4, seed=1), some(3, 1, 4, 4, seed=2)

    def refuses(_: Tensor) -> Tensor:
        raise AssertionError("nothing was to be looked at")

    parts = []
    for penalties in (Penalties(r1=1), Penalties(r2=2), Penalties(gradient=3), Penalties(r1=1, r2=2, gradient=3)):
        torch.manual_seed(0)
        parts.append(penalties(quadratic, real, made).item())
    assert sum(parts[:3]) == pytest.approx(parts[3], rel=1e-12) and min(parts) > 0
    assert Penalties()(refuses, real, made).item() == 0


def test_a_penalty_teaches_the_discriminator_and_leaves_images_alone() -> None:
    weights, real = some(1, 2, 2).requires_grad_(), some(3, 1, 2, 2, seed=1).requires_grad_()
    Penalties(r1=2)(linear(weights), real, real).backward()
    assert weights.grad is not None and torch.allclose(weights.grad, 2 * weights.detach())
    assert real.grad is None
    flat = torch.zeros(1, 2, 2, dtype=torch.float64, requires_grad=True)
    Penalties(gradient=1)(linear(flat), real, real).backward()
    assert flat.grad is not None and flat.grad.isfinite().all()  # the root has no slope at 0


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), side=st.integers(1, 4), channels=st.sampled_from([1, 3]))
def test_a_slope_is_that_of_finite_differences(seed: int, side: int, channels: int) -> None:
    random = torch.Generator().manual_seed(seed)
    sizes = [channels * side**2, 5, 1]
    layers = [torch.randn(a, b, generator=random, dtype=torch.float64) for a, b in pairwise(sizes)]

    def seen(y: Tensor) -> Tensor:
        return (torch.tanh(y.flatten(1) @ layers[0]) @ layers[1]).flatten()

    images, step = some(2, channels, side, side, seed=seed), 1e-6
    y = 2 * images - 1
    expected = torch.zeros(2, dtype=torch.float64)
    for place in range(sizes[0]):
        moved = torch.zeros_like(y)
        moved.flatten(1)[:, place] = step
        expected += ((seen(y + moved) - seen(y - moved)) / (2 * step)).square()
    assert slopes(lambda x: seen(2 * x - 1), images).tolist() == pytest.approx(expected.tolist(), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("key", ["r1", "r2", "gradient_penalty"])
def test_a_penalty_below_0_is_one_sentence(key: str) -> None:
    with pytest.raises(UserError, match=f"adversary.{key}=-1"):
        Penalties(**{key.removesuffix("_penalty"): -1})


# the objective of a VAE


def test_binary_cross_entropy_is_bernoullis_likelihood_and_least_where_both_agree() -> None:
    made, wanted = some(2, 1, 3, 3), some(2, 1, 3, 3, seed=1)
    pairs = zip(made.flatten().tolist(), wanted.flatten().tolist(), strict=True)
    expected = mean([-(x * math.log(y) + (1 - x) * math.log(1 - y)) for y, x in pairs])
    assert BCE()(made, wanted).item() == pytest.approx(expected, rel=1e-5)
    made = wanted.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(BCE()(made, wanted), made)
    assert gradient.abs().max() < 1e-5


def test_binary_cross_entropy_takes_images_a_little_beyond_white_and_half_precision() -> None:
    made = torch.tensor([-0.1, 0.0, 1.0, 1.1]).reshape(1, 1, 2, 2)
    wanted = torch.tensor([0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 2, 2)
    assert BCE()(made, wanted) == 0
    with torch.autocast("cpu", torch.bfloat16):
        coarse = BCE()(torch.full((1, 1, 2, 2), 0.5, dtype=torch.bfloat16), wanted)
    assert coarse.dtype == torch.float32 and coarse.item() == pytest.approx(math.log(2))
