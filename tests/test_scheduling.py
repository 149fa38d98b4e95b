"""Any scheduler of torch steps when it should, watches the headline in its better direction, and is resumed."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small_duel import adversary, small_duel
from tests.small_job import TRAINER, small_job
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, OneCycleLR, ReduceLROnPlateau, SequentialLR, StepLR

from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure
from upsweep.networks import checkpoints
from upsweep.runs.about import About
from upsweep.runs.layout import LAST
from upsweep.training.job import train
from upsweep.training.scheduling import Scheduled, scheduled, step

PSNR = Figure(name="psnr", title="PSNR", unit="dB", better="higher", digits=2, noise=0.05)


partly: Any = partial  # of what a config may say: `interval` and `monitor` are ours, and not all is right


def on(schedule: Any, headline: Figure = PSNR) -> Scheduled:
    optimizer = SGD([nn.Parameter(torch.zeros(2))], lr=1.0, momentum=0.9)
    return scheduled(schedule, optimizer, steps=8, epochs=2, headline=headline)


def rate(on: Scheduled) -> float:
    return float(on.scheduler.optimizer.param_groups[0]["lr"])


def test_a_scheduler_of_torch_steps_by_epochs_unless_it_is_told_to_step_by_steps() -> None:
    by_epoch, by_step = (on(partly(StepLR, step_size=1, gamma=0.5, **more)) for more in ({}, {"interval": "step"}))
    for each in (by_epoch, by_step):
        each.end_epoch({}, judged=True)
    assert (rate(by_epoch), rate(by_step)) == (0.5, 1.0)


def test_one_cycle_is_as_long_as_the_training_and_no_longer() -> None:
    cycle = on(partly(OneCycleLR, max_lr=1.0))
    rates = []
    for _ in range(8):
        rates.append(rate(cycle))
        step(cycle.scheduler)
    assert rates[0] == pytest.approx(1 / 25) and max(rates) > 0.9 and rates[-1] == pytest.approx(4e-6)
    with pytest.raises(UserError, match=r"cannot go on, see scheduler\.\*"):
        step(cycle.scheduler)


def test_a_class_derived_from_torchs_is_treated_as_that() -> None:
    class Cycle(OneCycleLR): ...

    class Plateau(ReduceLROnPlateau): ...

    assert on(partly(Cycle, max_lr=1.0)).interval == "step"
    assert on(partly(Plateau)).monitor == "val/psnr"


def test_schedulers_follow_each_other() -> None:
    halves = [partly(ConstantLR, factor=0.1, total_iters=2), partly(ExponentialLR, gamma=0.5)]
    both = on(partly(SequentialLR, schedulers=halves, milestones=[1]))
    assert rate(both) == pytest.approx(0.1)
    both.end_epoch({}, judged=True)
    both.end_epoch({}, judged=True)
    assert rate(both) == pytest.approx(0.5)


@pytest.mark.parametrize(("better", "gets_worse"), [("higher", [30.0, 20.0]), ("lower", [20.0, 30.0])])
def test_a_plateau_is_one_of_the_headline_whichever_way_is_better(better: Any, gets_worse: list[float]) -> None:
    headline = Figure(name="fd", title="FD", better=better, digits=1, noise=0.5)
    worse, improves = (on(partly(ReduceLROnPlateau, patience=0, factor=0.1), headline) for _ in range(2))
    for w, i in zip(gets_worse, reversed(gets_worse), strict=True):
        worse.end_epoch({"val/fd": w}, judged=True)
        improves.end_epoch({"val/fd": i}, judged=True)
    assert [rate(worse), rate(improves)] == pytest.approx([0.1, 1.0])


def test_a_plateau_does_not_count_an_epoch_without_a_validation_and_may_watch_anything_logged() -> None:
    plateau = on(partly(ReduceLROnPlateau, patience=0, factor=0.1))
    for _ in range(3):
        plateau.end_epoch({"val/psnr": 30.0}, judged=False)
    assert rate(plateau) == 1.0
    loss = on(partly(ReduceLROnPlateau, patience=0, factor=0.1, monitor="train/loss"))
    for value in (1.0, 2.0):
        loss.end_epoch({"train/loss": value}, judged=False)
    assert rate(loss) == pytest.approx(0.1)
    unknown = on(partly(ReduceLROnPlateau, monitor="val/lpips"))
    with pytest.raises(UserError, match=r"monitor=val/lpips is not logged; what is: train/loss, val/psnr"):
        unknown.end_epoch({"val/psnr": 1.0, "train/loss": 1.0}, judged=True)


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (partly(StepLR, step_sise=3), "refuses its arguments"),
        (partly(StepLR, step_size=3, interval="batch"), "interval=batch must be step or epoch"),
        (partly(ReduceLROnPlateau, interval="step"), "interval=step must be epoch"),
        (partly(OneCycleLR), "max_lr"),
    ],
)
def test_what_a_scheduler_does_not_take_is_one_sentence(schedule: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        on(schedule)


NEVER_GAINS = partly(ReduceLROnPlateau, patience=0, threshold=1000.0, threshold_mode="abs", factor=0.5)


@pytest.mark.parametrize("duel", [False, True], ids=["alone", "against_an_adversary"])
def test_a_run_that_goes_on_has_the_rates_of_one_that_was_never_stopped(
    tmp_path: Path, cache: Path, duel: bool
) -> None:
    def rates(folder: Path, epochs: int, **more: Any) -> list[float]:
        given = {"trainer": {**TRAINER, "limit_val_batches": 1, "max_epochs": epochs}, "schedule": NEVER_GAINS, **more}
        if duel:
            against = adversary(schedule=partly(StepLR, step_size=1, gamma=0.5))
            train(small_duel(folder, cache, against=against, **given))
        else:
            train(small_job(folder, cache, **given))
        state = checkpoints.read(folder / LAST)
        return [group["lr"] for optimizer in state["optimizer_states"] for group in optimizer["param_groups"]]

    whole = rates(tmp_path / "whole", 3)
    rates(tmp_path / "broken", 2)
    assert rates(tmp_path / "broken", 3, resume=True) == whole
    start = 5e-4 if duel else 1e-3
    assert whole[0] == pytest.approx(start / 4), "the first validation is no plateau, both others are"
    assert whole[-1] == pytest.approx(start / 8 if duel else start / 4), "a step an epoch"


def test_the_state_of_one_scheduler_is_not_given_to_another(tmp_path: Path, cache: Path) -> None:
    config = {"scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR"}}
    train(small_job(tmp_path, cache, config=config, schedule=partly(StepLR, step_size=1)))
    assert About.read(tmp_path) is not None
    other = {"scheduler": {"_target_": "upsweep.training.schedules.Cosine"}}
    with pytest.raises(
        UserError, match=r"was trained with scheduler=torch\.optim\.lr_scheduler\.StepLR, whose state does not"
    ):
        train(small_job(tmp_path, cache, config=other, resume=True))
