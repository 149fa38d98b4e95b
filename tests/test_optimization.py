"""Schedules against torch's own, groups and their rates, and a Muon that is torch's where torch has one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from upsweep.common.errors import UserError
from upsweep.training import schedules
from upsweep.training.optimizers import (
    Muon,
    by_dotted_name,
    is_matrix,
    orthogonal,
    parameter_groups,
    scale_rates,
)

CONF = Path(__file__).resolve().parent.parent / "conf"


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def chosen(group: str, name: str) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", [f"{group}={name}"])[group], _convert_="all")


# schedules


@pytest.mark.parametrize("name", names("scheduler"))
def test_every_schedule_stays_between_zero_and_one(name: str) -> None:
    schedule = chosen("scheduler", name)
    factors = [schedule(i / 1000) for i in range(1101)]  # a training may be made longer than it was planned
    assert all(0 <= factor <= 1 for factor in factors) and max(factors) > 0.99


@given(st.floats(0, 1), st.floats(0, 0.9), st.floats(0, 1))
def test_cosine_stays_between_final_and_one_once_it_is_warm(final: float, warmup: float, progress: float) -> None:
    factor = schedules.Cosine(final, warmup=warmup)(progress)
    assert (0 if progress < warmup else final - 1e-12) <= factor <= 1


def test_cosine_begins_at_one_passes_the_middle_and_ends_at_final() -> None:
    cosine = schedules.Cosine(final=0.1)
    assert [cosine(0), cosine(0.5), cosine(1)] == pytest.approx([1, 0.55, 0.1])


def test_step_halves_at_each_milestone() -> None:
    assert [schedules.Step((0.5, 0.75), 0.5)(t) for t in (0.4, 0.5, 0.8)] == [1, 0.5, 0.25]


@pytest.mark.parametrize("kind", [schedules.Constant, schedules.Cosine, schedules.Step])
def test_a_warm_up_rises_linearly_to_where_the_schedule_begins(kind: Callable[..., schedules.Schedule]) -> None:
    schedule = kind(warmup=0.2)
    assert [schedule(0), schedule(0.1), schedule(0.2)] == pytest.approx([0, 0.5, 1])


def test_one_cycle_is_torchs() -> None:
    steps = 50
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps, cycle_momentum=False)
    # Theirs ends at the last step, and turns one step before the share says.
    ours = schedules.OneCycle(rise=(0.3 * steps - 1) / (steps - 1))
    for step in range(steps):
        assert ours(step / (steps - 1)) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        if step < steps - 1:
            theirs.step()


def test_a_schedule_outside_the_training_is_refused() -> None:
    with pytest.raises(UserError, match="milestones"):
        schedules.Step(milestones=[30, 60])
    for kind in (schedules.Constant, schedules.Cosine, schedules.Step):
        with pytest.raises(UserError, match="warmup"):
            kind(warmup=1.5)
    with pytest.raises(UserError, match="rise"):
        schedules.OneCycle(rise=1)


# groups


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2), nn.ConvTranspose2d(2, 1, 4, 2, 1))


def test_weight_decay_is_kept_off_biases_norms_and_slopes() -> None:
    decaying, plain = parameter_groups(network())
    assert [p.shape for p in decaying["params"]] == [(2, 1, 3, 3), (2, 1, 4, 4)]
    assert len(plain["params"]) == 5 and plain["weight_decay"] == 0


@pytest.mark.parametrize("name", names("optimizer"))
def test_a_part_learns_at_its_factor_of_the_rate_under_every_optimizer_and_schedule(name: str) -> None:
    net = network()
    optimizer = chosen("optimizer", name)(parameter_groups(net, {"3": 0.1}))
    scale_rates(optimizer)
    rate = optimizer.defaults["lr"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    schedule.optimizer.step()
    schedule.step()
    rates = {p: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == 7 and sum(len(group["params"]) for group in optimizer.param_groups) == 7
    for parameter_name, p in net.named_parameters():
        assert rates[p] == pytest.approx(rate * 0.5 * (0.1 if parameter_name.startswith("3.") else 1))
    assert optimizer.param_groups[0]["lr"] == rate * 0.5, "the rate that is logged is that without a factor"


def test_a_part_within_a_part_goes_first_and_a_name_is_a_whole_name() -> None:
    net = nn.ModuleDict({"up": network(), "upper": nn.Conv2d(1, 1, 1)})
    found = {p: g["factor"] for g in parameter_groups(net, {"up": 0.1, "up.3": 0.0}) for p in g["params"]}
    by_name = {name: found[p] for name, p in net.named_parameters()}
    assert by_name["up.0.weight"] == 0.1 and by_name["up.3.bias"] == 0.0 and by_name["upper.weight"] == 1.0


def test_a_factor_of_nothing_or_below_zero_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"factors\.upsample: .* it has 0, 1, 2, 3\."):
        parameter_groups(network(), {"upsample": 0.1})
    with pytest.raises(UserError, match=r"factors\.3=-1"):
        parameter_groups(network(), {"3": -1})


def test_a_part_within_a_part_is_named_as_the_command_line_names_it() -> None:
    assert by_dotted_name({"levels": {"0": 0.5, "1": {"image": 2}}, "last": 0.1}) == {
        "levels.0": 0.5,
        "levels.1.image": 2.0,
        "last": 0.1,
    }
    with pytest.raises(UserError, match=r"factors\.levels\.0=half must be a number"):
        by_dotted_name({"levels": {"0": "half"}})


# muon


def descend(parameters: list[nn.Parameter], make: Callable[..., torch.optim.Optimizer], steps: int = 3) -> None:
    """A few steps down a fixed quadratic, the same for parameters of the same number of elements."""
    optimizer = make(parameters)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((p.flatten() - torch.linspace(-1, 1, p.numel())) ** 2).sum() for p in parameters).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("shape", [(8, 4, 3, 3), (4, 8, 3, 3), (2, 16, 1, 1), (24, 24)])
def test_of_a_kernel_muon_is_torchs_muon_of_the_matrix(shape: tuple[int, ...]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kernel, matrix = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    descend([kernel], partial(Muon, lr=0.01, weight_decay=0.1))
    descend([matrix], partial(torch.optim.Muon, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"))
    moved, expected = kernel.detach() - start, matrix.detach().view(shape) - start
    assert expected.square().mean().sqrt() > 0.003, "three steps of 0.2 lr"
    assert (moved - expected).norm() < 0.03 * expected.norm(), "torch iterates in bfloat16, ours in float32"


@pytest.mark.parametrize("shape", [(8,), (1, 8, 3, 3), (8, 1, 1, 1)])
def test_of_what_is_no_matrix_muon_is_adamw(shape: tuple[int, ...]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    descend([ours, nn.Parameter(torch.randn(4, 4))], partial(Muon, lr=0.01, weight_decay=0.1))
    descend([theirs], partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1))
    assert not is_matrix(ours) and torch.equal(ours, theirs)


def test_an_orthogonal_matrix_has_singular_values_near_one_and_keeps_its_vectors() -> None:
    matrix = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = u.T @ orthogonal(matrix).float() @ v.T
    assert kept.diag().min() > 0.5 and kept.diag().max() < 1.5
    assert (kept - kept.diag().diag()).abs().max() < 0.05


def test_muon_goes_on_from_its_state_bit_for_bit() -> None:
    def trained(steps: int) -> tuple[nn.Sequential, Muon]:
        torch.manual_seed(0)
        net = network()
        optimizer = Muon(parameter_groups(net), lr=0.01)
        for _ in range(steps):
            step(net, optimizer)
        return net, optimizer

    def step(net: nn.Sequential, optimizer: Muon) -> None:
        x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)

        def closure() -> float:
            optimizer.zero_grad()
            loss: torch.Tensor = (net(x) - 0.5).square().mean()
            loss.backward()
            return loss.item()

        assert optimizer.step(closure) is not None

    whole, _ = trained(4)
    half, optimizer = trained(2)
    again, _ = trained(0)
    again.load_state_dict(half.state_dict())
    going_on = Muon(parameter_groups(again), lr=0.01)
    going_on.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        step(again, going_on)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
