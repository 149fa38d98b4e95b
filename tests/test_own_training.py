"""A training of the user's own takes the place of ours, or is refused in a sentence."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tests.small_duel import adversary
from tests.small_job import TRAINER, small_job
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.training import schedules
from upsweep.training.adversarial import Adversarial
from upsweep.training.base import Player, Training
from upsweep.training.job import train
from upsweep.training.own import own_training
from upsweep.training.supervised import Supervised

SHARED: dict[str, Any] = {
    "objective": nn.L1Loss(),
    "optimizer": partial(torch.optim.Adam, lr=1e-3),
    "schedule": schedules.Constant(),
    "factors": {},
    "rule": None,
    "compiled": False,
}
DUEL = {**SHARED, "adversary": adversary(), "clip": None, "clip_by": None, "accumulate": 1}


class Weighted(Supervised):
    """A loss times a weight."""

    weights: ClassVar[list[float]] = []

    def __init__(self, weight: float, **others: Any) -> None:
        super().__init__(**others)
        self.weight = weight

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.weights.append(self.weight)
        return self.weight * super().training_step(batch, batch_idx)


class Bare(Training):
    """Nothing of Supervised's."""

    def __init__(self, generator: Any, objective: Any, optimizer: Any, schedule: Any, **others: Any) -> None:
        players = {"generator": Player(generator, objective, optimizer, schedule)}
        super().__init__(generator=generator, players=players, **others)


class Closed(Supervised):
    def __init__(self, generator: Any, objective: Any) -> None:
        super().__init__(
            generator=generator, objective=objective, optimizer=SHARED["optimizer"], schedule=SHARED["schedule"]
        )


def test_a_subclass_trains_with_an_argument_of_its_own(tmp_path: Path, cache: Path) -> None:
    once = {**TRAINER, "max_epochs": 1, "limit_val_batches": 1}
    job = small_job(tmp_path, cache, trainer=once)
    Weighted.weights.clear()
    result = train(replace(job, training=own_training(partial(Weighted, weight=0.5), SHARED)))
    assert result.state == "finished" and Weighted.weights == [0.5] * 3


@pytest.mark.parametrize(
    ("own", "arguments", "told"),
    [
        (partial(nn.Linear), SHARED, r"Linear must be a subclass of upsweep\.training\.supervised\.Supervised"),
        (partial(dict), SHARED, "must be a subclass"),
        (partial(Adversarial), SHARED, "which trains without an adversary"),
        (
            partial(Weighted, weight=1.0),
            DUEL,
            r"subclass of upsweep\.training\.adversarial\.Adversarial, which trains ag",
        ),
        (partial(Bare), SHARED, "takes no factors"),
        (partial(Weighted), SHARED, "missing a required argument: 'weight'"),
        (partial(Weighted, weight=1.0, height=2.0), SHARED, "takes no height"),
        (partial(Closed), SHARED, "unexpected keyword argument"),
    ],
)
def test_what_is_no_such_training_is_refused(own: Any, arguments: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        own_training(own, arguments)


def test_a_duel_may_be_of_the_users_own() -> None:
    assert own_training(partial(Adversarial), DUEL).func is Adversarial
