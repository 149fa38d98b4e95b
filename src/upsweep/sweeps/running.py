"""One loop runs the jobs of every sweep; a `Machine` says how: processes here, SLURM's queue, a Ray cluster."""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Protocol

from upsweep.sweeps.jobs import STOPPED, Planned


@dataclass(frozen=True)
class Ended:
    """A job of which no process is left: its exit code (negative: the signal that killed it), and why it was stopped.

    `why` is None where the job ended by itself, or with the whole sweep.
    """

    job: Planned
    code: int
    why: str | None = None


class Machine(Protocol):
    """Where jobs run. The loop asks it several times a second, so that none of this may take long.

    A job is told by the machine when it has `started`, by the loop when it has `ended`.
    """

    poll_seconds: float
    """How long the loop sleeps between two rounds."""

    @property
    def parallel(self) -> int:
        """How many jobs run at a time."""

    @property
    def decided(self) -> str | None:
        """What it has decided by itself, to be said at the start."""

    def room(self) -> int:
        """How many more jobs it takes now; 0 without a running job only for a while."""

    def start(self, jobs: Sequence[Planned]) -> None:
        """Start jobs, at most as many as there is room for. Raises UserError: none of their like can be started."""

    def ended(self) -> Iterable[Ended]:
        """The jobs that have ended since the last call."""

    def stop(self, signum: signal.Signals, *, at_once: bool) -> None:
        """Pass a signal on to the running jobs, which save and exit; `at_once`: end them without."""

    def close(self) -> None:
        """End what is still running."""


def run_jobs(
    machine: Machine,
    ask: Callable[[int], Sequence[Planned]],
    tell: Callable[[Planned], None],
    tick: Callable[[], None],
) -> signal.Signals | None:
    """Run jobs on a machine, which is closed at the end; return the signal that stopped them, or None.

    The first SIGINT, SIGTERM or SIGHUP is passed on to the running jobs, and no further job starts; a second one ends
    them at once.

    Args:
        machine: where they run.
        ask: gives the next jobs, at most as many as it is asked for. None while no job runs: there are no more.
        tell: is told of every job that has ended, before the next ones are asked for.
        tick: is called in every round.

    Raises:
        UserError: a job cannot be started at all.
    """
    running, passed_on = 0, 0
    with caught_signals() as caught, closing(machine):
        while True:
            if len(caught) > passed_on:
                passed_on = len(caught)
                # a training saves at SIGTERM, but SIGHUP (a closed terminal) ends it at once
                signum = signal.SIGTERM if caught[0] is signal.SIGHUP else caught[0]
                machine.stop(signum, at_once=passed_on > 1)
            for each in machine.ended():
                running -= 1
                each.job.ended(each.code, each.why or (STOPPED if caught else None))
                tell(each.job)
            room = 0 if caught else machine.room()
            if jobs := ask(room) if room else []:
                machine.start(jobs)
                running += len(jobs)
            elif not running and (room or caught):
                break
            tick()
            time.sleep(machine.poll_seconds)
    return caught[0] if caught else None


@contextmanager
def caught_signals() -> Iterator[list[signal.Signals]]:
    """Collect SIGINT, SIGTERM and SIGHUP instead of acting on them."""
    caught: list[signal.Signals] = []
    main = threading.current_thread() is threading.main_thread()  # Python catches none elsewhere
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if main else ()
    before = {signum: signal.getsignal(signum) for signum in signals}
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(signum, lambda number, _frame: caught.append(signal.Signals(number)))
    try:
        yield caught
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
