"""How a sweep looks while it runs: a live table in a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from upsweep.analysis.ranking import UNDECLARED, differing
from upsweep.common.progress import clock, redraws
from upsweep.common.table import Table
from upsweep.metrics.figure import Figure
from upsweep.runs.progress import Progress
from upsweep.runs.result import Result

REFRESH_SECONDS = 0.5
LINE_SECONDS = 30.0


@dataclass
class Status:
    """One job as the display sees it: waiting until `started_at`, running until there is a `result`."""

    folder: Path
    settings: Mapping[str, str]
    headline: Figure = UNDECLARED
    started_at: float | None = None
    progress: Progress | None = None
    result: Result | None = None
    said: tuple[str, float] = ("waiting", 0.0)
    """The state in the last line, and its time: kept from one batch of jobs to the next."""

    @property
    def state(self) -> str:
        """Where the job is: waiting, running, or the state of its result."""
        if self.result is not None:
            return self.result.state
        return "waiting" if self.started_at is None else "running"

    @property
    def value(self) -> float | None:
        """The newest value of the headline."""
        newest = self.result or self.progress
        return None if newest is None else newest.figures.get(self.headline.name)


def seconds_left(jobs: Mapping[str, Status], parallel: int, now: float, most: int = 0) -> float | None:
    """The time that the sweep still needs, or None while nothing is known.

    The running jobs report their own; each waiting job, also of the `most` that are still to come, counts the mean of
    the others.
    """
    left, takes = list[float](), list[float]()
    for job in jobs.values():
        if job.result is not None:
            takes += [job.result.seconds] if job.result.seconds else []
        elif job.started_at is not None and job.progress is not None and job.progress.seconds_left is not None:
            left.append(job.progress.seconds_left)
            takes.append(now - job.started_at + job.progress.seconds_left)
    waiting = sum(job.state == "waiting" for job in jobs.values()) + max(0, most - len(jobs))
    return max([(sum(left) + statistics.fmean(takes) * waiting) / parallel, *left]) if takes else None


@contextmanager
def display(
    jobs: Mapping[str, Status], parallel: int, file: TextIO | None = None, *, most: int = 0, quiet: bool = False
) -> Iterator[Callable[[], None]]:
    """Give a function that shows the current state on `file` (stdout): a live table in a terminal, lines elsewhere.

    Jobs may be added meanwhile, until there are `most`.
    """
    file = sys.stdout if file is None else file
    if quiet:
        yield lambda: None
        return
    kind = LiveTable if redraws(file) else PlainLines
    with closing(kind(jobs, parallel, file, most)) as shown:
        yield shown.update


class LiveTable:
    """A table that redraws itself: what differs, state, epoch, headline, and the time left."""

    def __init__(self, jobs: Mapping[str, Status], parallel: int, file: TextIO, most: int = 0) -> None:
        from rich.console import Console  # rich takes longer to import than `--help` may take in all
        from rich.live import Live

        self._jobs, self._parallel, self._most = jobs, parallel, most
        self._live = Live(console=Console(file=file), auto_refresh=False, transient=True)
        self._live.start()
        self._next = 0.0

    def update(self) -> None:
        """Redraw, at most twice a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REFRESH_SECONDS
        for job in self._jobs.values():
            if job.state == "running":
                job.progress = Progress.read(job.folder)
        console = self._live.console
        table = self.table(console.height - 4)
        self._live.update(table.within(console.width).rich(), refresh=True)

    def close(self) -> None:
        """Remove the table: the ranked one follows."""
        self._live.stop()

    def table(self, height: int) -> Table:
        """The table with at most `height` rows: if not all fit, running and failed jobs come first."""
        order = {"running": 0, "waiting": 2, "pruned": 3, "finished": 3}  # what went wrong: 1
        shown = list(self._jobs)
        if len(shown) > height:
            shown = sorted(shown, key=lambda name: order.get(self._jobs[name].state, 1))[: max(1, height)]
        done = sum(job.result is not None for job in self._jobs.values())
        left = clock(seconds_left(self._jobs, self._parallel, time.time(), self._most))
        columns = differing([job.settings for job in self._jobs.values()])
        figure = next((job.headline for job in self._jobs.values()), UNDECLARED)
        hidden = f" ({len(self._jobs) - len(shown)} jobs not shown)" if len(shown) < len(self._jobs) else ""
        return Table(
            title=f"{done} of {max(self._most, len(self._jobs))} jobs done, {left} left{hidden}",
            headers=["job", *columns, "epoch", figure.title, "time left", "state"],
            rows=[[name, *self._cells(self._jobs[name], columns)] for name in shown],
            left=1 + len(columns),
            least=[*columns, "epoch", "time left"],
        )

    def _cells(self, job: Status, columns: Sequence[str]) -> list[str]:
        newest = job.result or job.progress
        return [
            *(job.settings.get(column, "") for column in columns),
            "" if newest is None or not newest.epochs else f"{newest.epoch}/{newest.epochs}",
            "" if job.value is None else job.headline.format(job.value),
            "" if job.result or job.progress is None else clock(job.progress.seconds_left),
            f"{job.state}{_below(job)}",
        ]


class PlainLines:
    """A line when a job starts and ends, and one on its progress every half minute."""

    def __init__(self, jobs: Mapping[str, Status], parallel: int, file: TextIO, most: int = 0) -> None:
        self._jobs, self._parallel, self._file, self._most = jobs, parallel, file, most

    def update(self) -> None:
        for name, job in [*self._jobs.items()]:
            state, said_at = job.said
            if job.state != state:
                self._say(name, self._news(job))
            elif state == "running" and time.monotonic() > said_at + LINE_SECONDS:
                job.progress = Progress.read(job.folder)
                self._say(name, self._standing(job))

    close = update

    def _say(self, name: str, what: str) -> None:
        print(f"job {name} {what}", file=self._file, flush=True)
        job = self._jobs[name]
        job.said = job.state, time.monotonic()

    def _news(self, job: Status) -> str:
        if job.result is None:
            columns = differing([each.settings for each in self._jobs.values()])
            chosen = " ".join(f"{column}={job.settings.get(column, '')}" for column in columns)
            return f"started: {chosen or job.folder}"
        took = "" if job.started_at is None else f" after {clock(time.time() - job.started_at)}"
        return f"{job.state}{took}{_reached(job)}"

    def _standing(self, job: Status) -> str:
        if job.progress is None:
            return "is starting"
        total = seconds_left(self._jobs, self._parallel, time.time(), self._most)
        return (
            f"epoch {job.progress.epoch}/{job.progress.epochs}{_reached(job)}, "
            f"{clock(job.progress.seconds_left)} left (the sweep: {clock(total)})"
        )


def _reached(job: Status) -> str:
    return "" if job.value is None else f", {job.headline.title} {job.headline.text(job.value)}{_below(job)}"


def _below(job: Status) -> str:
    below = job.result and job.result.below
    return f", {below}" if below else ""
