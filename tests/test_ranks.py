"""A training never waits for ever for a rank that has ended; what ends it is told, and is what it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from tests.small_job import small_job

from upsweep.runs.result import INTERRUPTED, REQUEUE, Result
from upsweep.training import ranks, saving
from upsweep.training.job import _Run
from upsweep.training.ranks import Ranks
from upsweep.training.saving import Preemption


class Left(BaseException):
    """Takes the place of the end of the process."""


@pytest.fixture(autouse=True)
def left(monkeypatch: pytest.MonkeyPatch) -> mock.Mock:
    left = mock.Mock(side_effect=Left)
    for module in (ranks, saving):
        monkeypatch.setattr(module.os, "_exit", left)
    return left


def rank(code: int | None) -> mock.Mock:
    return mock.Mock(poll=lambda: code)


def watch(said: Callable[[str, int], object], started: list[mock.Mock], *waits: Any) -> None:
    """Watch while the training is not over: `waits` are what comes of the watcher's waits for its end."""
    watcher = Ranks(said)
    watcher._over = mock.Mock(wait=mock.Mock(side_effect=waits))
    watcher._watch(cast(Any, started))


def test_a_training_ends_also_where_its_last_words_cannot_be_written(left: mock.Mock) -> None:
    full, others = mock.Mock(side_effect=OSError("no room")), [rank(None), rank(-9)]
    with pytest.raises(Left):
        watch(full, others, False, False)
    assert full.call_args.args == ("rank 2 was killed (SIGKILL)", 1) and left.call_args.args == (1,)
    assert all(each.kill.called for each in others)
    with pytest.raises(Left):
        Preemption(full)._give_up()
    assert left.call_args.args == (REQUEUE,)


def test_ranks_that_sigterm_has_ended_are_no_failure_also_where_that_was_seen_before_this_process_heard_of_it() -> None:
    started, said = [rank(REQUEUE)], mock.Mock()

    def hear(_: float) -> bool:
        """SIGTERM, within the time in which a training may end by itself."""
        started.clear()
        return False

    waits = iter([lambda _: False, hear, lambda _: False, lambda _: True])
    watcher = Ranks(said)
    watcher._over = mock.Mock(wait=lambda seconds: next(waits)(seconds))
    watcher._watch(cast(Any, started))
    assert not said.called


@pytest.mark.parametrize(
    ("code", "state", "why"),
    [(REQUEUE, "stopped", "preempted by SIGTERM"), (INTERRUPTED, "stopped", "interrupted"), (1, "failed", "rank 1")],
)
def test_a_signal_that_ended_a_rank_while_this_process_waits_for_it_stops_the_training(
    tmp_path: Path, left: mock.Mock, code: int, state: str, why: str
) -> None:
    run = _Run(small_job(tmp_path, tmp_path / "cache"))
    run.begin()
    with pytest.raises(Left):
        watch(run.left_alone, [rank(code)], False, False)
    result = Result.read(tmp_path)
    assert result is not None and result.state == state and str(result.reason).startswith(why)
    assert left.call_args.args == (code,)
