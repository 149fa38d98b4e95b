"""The schedule of a player on its optimizer: a factor by progress, or any scheduler of torch."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from upsweep.common.errors import UserError, first_line
from upsweep.metrics.figure import Figure
from upsweep.runs.history import VAL
from upsweep.training.schedules import Schedule

Interval = Literal["step", "epoch"]
BY_STEP = (OneCycleLR, CyclicLR)  # which are made to be stepped so; all others by epoch, as torch's own examples do


@dataclass(frozen=True)
class Scheduled:
    """A scheduler on an optimizer, and when it steps.

    One that steps by epochs does so at an epoch's end before anything is saved: Lightning would save first where the
    scheduler watches a figure, and a run that goes on would have forgotten a step.
    """

    scheduler: LRScheduler
    interval: Interval = "step"
    monitor: str | None = None  # the name of what it watches in the log

    def told(self, *, by_hand: bool) -> dict[str, Any]:
        """What Lightning is told of it: to save it, and to step it if it steps by steps."""
        never = {"frequency": sys.maxsize} if self.interval == "epoch" else {}
        watches = {} if by_hand else {"reduce_on_plateau": False}
        return {"scheduler": self.scheduler, "interval": self.interval, **never, **watches}

    def end_epoch(self, logged: Mapping[str, Any], *, judged: bool) -> None:
        """Step, where an epoch counts. Raises UserError: what it watches was not logged, or it is at its end."""
        if self.interval != "epoch":
            return
        if self.monitor is None:
            step(self.scheduler)
        elif self.monitor in logged and (judged or not self.monitor.startswith(VAL)):
            step(self.scheduler, float(logged[self.monitor]))
        elif self.monitor not in logged and judged:
            raise UserError(f"scheduler.monitor={self.monitor} is not logged; what is: {', '.join(sorted(logged))}.")


def step(scheduler: LRScheduler, *watched: float) -> None:
    """Step a scheduler. Raises UserError: it was made for fewer steps."""
    try:
        scheduler.step(*cast(Any, watched))
    except ValueError as error:
        raise UserError(f"The scheduler cannot go on, see scheduler.* ({first_line(error)}).") from error


def is_torchs(schedule: Callable[..., Any]) -> bool:
    """Whether a schedule takes an optimizer, as torch's schedulers do; ours take the progress."""
    made = schedule.func if isinstance(schedule, partial) else schedule  # whose arguments may be unknown to it
    return next(iter(inspect.signature(made).parameters), None) == "optimizer"


def scheduled(
    schedule: Schedule | Callable[..., LRScheduler],
    optimizer: Optimizer,
    *,
    steps: int,
    epochs: int,
    headline: Figure,
    spent: Callable[[], float] = lambda: 0.0,
) -> Scheduled:
    """Put a schedule on an optimizer for a training of so many steps and epochs.

    `spent` gives the share of a budget that may end the training before: a schedule of ours follows whichever is
    further, a scheduler of torch its steps and epochs alone.

    A scheduler of torch may be given, beside its own arguments, the `interval` (`step` or `epoch`) by which it steps,
    and ReduceLROnPlateau what it watches, `monitor` (the headline, whose better direction it knows).

    Raises:
        UserError: torch refuses its arguments, or it has another interval.
    """
    if not is_torchs(schedule):
        return Scheduled(LambdaLR(optimizer, lambda done: cast(Schedule, schedule)(max(done / steps, spent()))))
    given = cast("partial[LRScheduler]", schedule if isinstance(schedule, partial) else partial(schedule))
    arguments = dict(given.keywords)
    made = given.func if isinstance(given.func, type) else LRScheduler  # a function may make any
    interval = arguments.pop("interval", "step" if issubclass(made, BY_STEP) else "epoch")
    plateau = issubclass(made, ReduceLROnPlateau)
    monitor = arguments.pop("monitor", f"{VAL}{headline.name}") if plateau else None
    if interval not in (known := get_args(Interval)) or (plateau and interval != "epoch"):
        raise UserError(f"scheduler.interval={interval} must be {'epoch' if plateau else ' or '.join(known)}.")
    if monitor == f"{VAL}{headline.name}":
        arguments.setdefault("mode", "max" if headline.better == "higher" else "min")
    if issubclass(made, OneCycleLR) and not {"total_steps", "epochs"} & arguments.keys():
        arguments["total_steps"] = steps if interval == "step" else epochs
    if "schedulers" in arguments:  # SequentialLR's and ChainedScheduler's own
        arguments["schedulers"] = [each(optimizer) for each in arguments["schedulers"]]
    try:
        return Scheduled(given.func(optimizer, *given.args, **arguments), interval, monitor)
    except (TypeError, ValueError, LookupError) as error:
        raise UserError(f"The scheduler refuses its arguments, see scheduler.* ({first_line(error)}).") from error
