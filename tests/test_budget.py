"""A budget ends a training when its core-minutes are spent, its schedule too; a resumed run has the rest.

The clock is a stand-in where steps are counted: a real one would have every machine take another number of them.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.small_duel import small_duel
from tests.small_job import TRAINER, small_job
from torch import nn
from torch.optim import SGD

from upsweep.common.errors import UserError
from upsweep.metrics.figure import Figure
from upsweep.networks import checkpoints
from upsweep.runs.history import read as history
from upsweep.runs.layout import HISTORY, LAST
from upsweep.runs.progress import Progress
from upsweep.runs.result import Result
from upsweep.training import schedules
from upsweep.training.budget import Budget
from upsweep.training.callbacks import ShowProgress
from upsweep.training.job import Job, train
from upsweep.training.records import History
from upsweep.training.saving import SaveBest
from upsweep.training.scheduling import scheduled

pytestmark = pytest.mark.usefixtures("one_thread")
ENDLESS = {"patches_per_epoch": 4_000_000, "trainer": {**TRAINER, "max_epochs": 1}}
STEP = 1 / 64  # seconds of the stand-in's that a step takes
STEPS = 32
MINUTES = STEPS * STEP / 60


class Clock:
    """Counts a step whenever it is read, which a budget does before its first step and after each."""

    now = 0.0

    def __call__(self) -> float:
        self.now += STEP
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "process_time", clock)
    return clock


class Rates(pl.Callback):
    """The learning rate of each step, and the share of the budget that was spent before it."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.spent: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.spent.append(pl_module.spent)


class Sleeper(pl.Callback):
    """A validation that takes as much CPU time as the whole budget."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.clock.now += 60 * MINUTES


def with_more(job: Job, *more: pl.Callback) -> Job:
    return replace(job, callbacks=[*more, *job.callbacks, History(job.folder)])


@pytest.mark.usefixtures("clock")
def test_a_budget_ends_the_training_and_its_schedule_and_the_last_weights_are_judged(
    tmp_path: Path, cache: Path
) -> None:
    rates, folder = Rates(), tmp_path / "run"
    shown = ShowProgress(folder, every=0, quiet=True)
    schedule = schedules.Cosine(final=0.01, warmup=0.1)
    job = with_more(small_job(folder, cache, schedule=schedule, **ENDLESS), Budget(MINUTES), rates, shown)
    result = train(job)
    assert (result.state, result.reason) == (
        "finished",
        f"ended by callbacks.budget.core_minutes={MINUTES:g} after {STEPS} steps",
    )
    assert Result.read(folder) == result
    assert rates.spent == [step / STEPS for step in range(STEPS)]
    behind = [
        1e-3 * schedule(share) for share in rates.spent[:-1]
    ]  # Lightning steps the schedule before callbacks count
    assert rates.rates[1:] == pytest.approx(behind, rel=1e-2, abs=1e-7)
    assert max(rates.rates) > 0.9e-3 and rates.rates[-1] < 0.03e-3
    (epoch,) = history(folder / HISTORY)
    assert epoch.step == STEPS and epoch.figures["psnr"] == result.figures["psnr"]
    progress = Progress.read(folder)
    assert progress is not None and (progress.step, progress.steps, progress.seconds_left) == (STEPS, STEPS, 0)


@pytest.mark.usefixtures("clock")
def test_a_resumed_training_has_the_rest_of_its_budget(tmp_path: Path, cache: Path) -> None:
    """The first of two epochs is short; what it has spent is known when the second goes on without end."""
    first = small_job(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 1})
    assert train(with_more(first, Budget(MINUTES))).reason is None, "its steps were done before"
    assert checkpoints.read(first.folder / LAST)["callbacks"]["Budget"]["seconds"] == 3 * STEP
    rates, more = Rates(), {**ENDLESS, "trainer": {**TRAINER, "max_epochs": 2}}
    result = train(with_more(small_job(first.folder, cache, resume=True, **more), Budget(MINUTES), rates))
    assert rates.spent == [step / STEPS for step in range(3, STEPS)] and rates.rates[1] < 1e-3
    assert result.reason is not None and f"after {STEPS} steps" in result.reason
    again = train(with_more(small_job(first.folder, cache, resume=True, **more), Budget(MINUTES), over := Rates()))
    assert again.reason == result.reason and not over.rates


def test_a_resumed_training_whose_budget_is_spent_trains_no_more_unless_it_is_given_more(
    tmp_path: Path, cache: Path
) -> None:
    job = small_job(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 3})
    ended = train(with_more(job, Budget(1e-9)))
    assert ended.reason == "ended by callbacks.budget.core_minutes=1e-09 after 1 step" and ended.epoch == 1
    on: dict[str, Any] = {"resume": True, "trainer": {**TRAINER, "max_epochs": 3}}
    same = train(with_more(small_job(job.folder, cache, **on), Budget(1e-9), none := Rates()))
    assert (same.reason, none.rates) == (ended.reason, [])
    train(with_more(small_job(job.folder, cache, **on), Budget(60), some := Rates()))
    assert len(some.rates) == 8, "the epoch of three steps goes on with its second"


@pytest.mark.usefixtures("clock")
def test_a_training_that_has_ended_and_kept_its_best_alone_is_not_begun_anew(tmp_path: Path, cache: Path) -> None:
    """As the jobs of experiment=zoo: without a last checkpoint, in one epoch that does not end."""

    def job(minutes: float, *more: pl.Callback, resume: bool) -> Job:
        job = small_job(tmp_path, cache, resume=resume, **ENDLESS)
        return replace(job, callbacks=[SaveBest(tmp_path), *more, Budget(minutes)])

    ended = train(job(MINUTES / 4, resume=False))
    same = train(job(MINUTES / 4, none := Rates(), resume=True))
    assert (same.reason, same.figures, none.rates) == (ended.reason, ended.figures, [])
    more = train(job(MINUTES, some := Rates(), resume=True))
    assert some.spent[0] == 1 / 4 and more.reason is not None, "it has the rest of the larger budget"


def test_two_players_share_one_budget_and_their_losses_are_kept(tmp_path: Path, cache: Path) -> None:
    job = with_more(small_duel(tmp_path / "run", cache, trainer={**TRAINER, "max_epochs": 2}), Budget(1e-9))
    result = train(job)
    assert result.reason is not None and "after 1 step" in result.reason
    (epoch,) = history(job.folder / HISTORY)
    assert epoch.loss is not None, "the mean loss of an epoch that was cut short"


def test_validation_costs_nothing_of_the_budget(tmp_path: Path, cache: Path, clock: Clock) -> None:
    trainer = {**TRAINER, "max_epochs": 2}
    job = with_more(small_job(tmp_path / "run", cache, trainer=trainer), Budget(MINUTES), Sleeper(clock))
    assert train(job).reason is None
    assert len(list(history(job.folder / HISTORY))) == 2


def test_the_first_ranks_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    class Strategy:
        def broadcast(self, seconds: float) -> float:
            return 30.0  # the first one's

    class Trainer:
        strategy, should_stop = Strategy(), False

    class Module:
        spent, iterations, total = 0.0, 5, 10

    spending, trainer, module = Budget(1.0), Trainer(), Module()
    spending.on_train_batch_start(trainer, module)  # type: ignore[arg-type]
    monkeypatch.setattr(time, "process_time", lambda: 1e9)
    spending.on_train_batch_end(trainer, module)  # type: ignore[arg-type]
    assert (module.spent, trainer.should_stop, spending.reason) == (0.5, False, None)


def test_a_schedule_follows_its_steps_or_the_budget_whichever_is_further() -> None:
    spent = [0.0]
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    headline = Figure(name="psnr", title="PSNR")
    on = scheduled(lambda share: 1 - share, optimizer, steps=4, epochs=1, headline=headline, spent=lambda: spent[0])
    optimizer.step()
    on.scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.75
    spent[0] = 0.9
    on.scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("minutes", [0, -1.0, float("nan"), float("inf"), True, "1 h", None])
def test_a_budget_that_is_no_positive_number_is_refused(minutes: Any) -> None:
    with pytest.raises(UserError, match=rf"callbacks.budget.core_minutes={minutes} must be a number above 0"):
        Budget(minutes)
