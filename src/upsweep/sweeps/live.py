"""How a sweep looks while it runs: a live table in a terminal, plain lines elsewhere."""

import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TextIO

from upsweep.sweeps.results import Progress, Result, Table, differing

REFRESH_SECONDS = 0.5
LINE_SECONDS = 30.0


@dataclass
class Status:
    """One job as the display sees it: waiting until `started_at`, running until there is a `result`."""

    folder: Path
    settings: Mapping[str, str]
    started_at: float | None = None
    progress: Progress | None = None
    result: Result | None = None

    @property
    def state(self) -> str:
        """Where the job is: waiting, running, or the state of its result."""
        if self.result is not None:
            return self.result.state
        return "waiting" if self.started_at is None else "running"

    @property
    def psnr(self) -> float | None:
        """The newest PSNR known, in dB."""
        newest = self.result or self.progress
        return None if newest is None else newest.psnr


def seconds_left(jobs: Mapping[str, Status], parallel: int, now: float) -> float | None:
    """The time that the sweep still needs, or None while nothing is known.

    What the running jobs report, and for each waiting one the mean of what the others take.
    """
    left = [job.progress.seconds_left for job in _in_state(jobs, "running") if job.progress is not None]
    known = [seconds for seconds in left if seconds is not None]
    takes = [job.result.seconds for job in jobs.values() if job.result is not None and job.result.seconds]
    takes += [
        now - job.started_at + job.progress.seconds_left
        for job in _in_state(jobs, "running")
        if job.started_at is not None and job.progress is not None and job.progress.seconds_left is not None
    ]
    if not takes:
        return None
    work = sum(known) + statistics.fmean(takes) * len(_in_state(jobs, "waiting"))
    return max([work / parallel, *known])


def _in_state(jobs: Mapping[str, Status], state: str) -> list[Status]:
    return [job for job in jobs.values() if job.state == state]


class Display(Protocol):
    """Shows the jobs; `update` may be called as often as one likes."""

    def update(self) -> None:
        """Show the state of now."""

    def close(self) -> None:
        """Show the last state, and leave the terminal as it was."""


def display(jobs: Mapping[str, Status], parallel: int, file: TextIO | None = None, *, quiet: bool = False) -> Display:
    """The display that suits `file` (stdout): a live table in a terminal, plain lines elsewhere; nothing if `quiet`."""
    file = sys.stdout if file is None else file
    if quiet:
        return Nothing()
    return LiveTable(jobs, parallel, file) if file.isatty() else PlainLines(jobs, parallel, file)


class Nothing:
    """Shows nothing: the ranked table in the end is all that is wanted."""

    def update(self) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing was shown."""


class LiveTable:
    """A table that redraws itself: what differs, state, epoch, PSNR, and the time left."""

    def __init__(self, jobs: Mapping[str, Status], parallel: int, file: TextIO) -> None:
        from rich.console import Console  # rich takes longer to import than `--help` may take in all
        from rich.live import Live

        self._jobs, self._parallel = jobs, parallel
        self._columns = differing([job.settings for job in jobs.values()])
        self._console = Console(file=file)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()
        self._next = 0.0

    def update(self) -> None:
        """Redraw, at most twice a second."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + REFRESH_SECONDS
        _read_progress(self._jobs)
        self._live.update(self.table(self._console.height - 4).rich(), refresh=True)

    def close(self) -> None:
        """Remove the table: the ranked one follows."""
        self._live.stop()

    def table(self, height: int) -> Table:
        """The table with at most `height` rows: if not all fit, what runs or went wrong comes first."""
        order = {"running": 0, "failed": 1, "diverged": 1, "stopped": 1, "waiting": 2, "pruned": 3, "finished": 3}
        shown = list(self._jobs)
        if len(shown) > height:
            shown = sorted(shown, key=lambda name: order[self._jobs[name].state])[: max(1, height)]
        done = sum(job.result is not None for job in self._jobs.values())
        left = seconds_left(self._jobs, self._parallel, time.time())
        hidden = len(self._jobs) - len(shown)
        return Table(
            title=f"{done} of {len(self._jobs)} jobs done, {_clock(left)} left"
            + (f" ({hidden} jobs not shown)" if hidden else ""),
            headers=["job", *self._columns, "epoch", "PSNR", "time left", "state"],
            rows=[[name, *self._cells(self._jobs[name])] for name in shown],
            left=1 + len(self._columns),
        )

    def _cells(self, job: Status) -> list[str]:
        newest = job.result or job.progress
        return [
            *(job.settings.get(column, "") for column in self._columns),
            "" if newest is None or not newest.epochs else f"{newest.epoch}/{newest.epochs}",
            "" if job.psnr is None else f"{job.psnr:.2f}",
            "" if job.result or job.progress is None else _clock(job.progress.seconds_left),
            job.state,
        ]


@dataclass
class PlainLines:
    """A line when a job starts and ends, and one on its progress every half minute."""

    jobs: Mapping[str, Status]
    parallel: int
    file: TextIO
    _said: dict[str, tuple[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._columns = differing([job.settings for job in self.jobs.values()])
        self._next = 0.0

    def update(self) -> None:
        """Say what is new."""
        for name, job in self.jobs.items():
            state, said_at = self._said.get(name, ("waiting", 0.0))
            if job.state != state:
                self._say(name, self._news(job))
            elif state == "running" and time.monotonic() > said_at + LINE_SECONDS:
                job.progress = Progress.read(job.folder)
                self._say(name, self._standing(job))

    def close(self) -> None:
        """Say what is new for the last time."""
        self.update()

    def _say(self, name: str, what: str) -> None:
        print(f"job {name} {what}", file=self.file, flush=True)
        self._said[name] = (self.jobs[name].state, time.monotonic())

    def _news(self, job: Status) -> str:
        if job.result is None:
            chosen = " ".join(f"{column}={job.settings.get(column, '')}" for column in self._columns)
            return f"started: {chosen or job.folder}"
        psnr = "" if job.psnr is None else f", PSNR {job.psnr:.2f} dB"
        took = "" if job.started_at is None else f" after {_clock(time.time() - job.started_at)}"
        return f"{job.state}{took}{psnr}"

    def _standing(self, job: Status) -> str:
        if job.progress is None:
            return "is starting"
        psnr = "" if job.psnr is None else f", PSNR {job.psnr:.2f} dB"
        total = seconds_left(self.jobs, self.parallel, time.time())
        return (
            f"epoch {job.progress.epoch}/{job.progress.epochs}{psnr}, "
            f"{_clock(job.progress.seconds_left)} left (the sweep: {_clock(total)})"
        )


def _read_progress(jobs: Mapping[str, Status]) -> None:
    for job in _in_state(jobs, "running"):
        job.progress = Progress.read(job.folder)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
