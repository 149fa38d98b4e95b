"""Progress on stderr: a bar with the time left on a terminal, now and then a line elsewhere."""

import os
import sys
import time
from collections.abc import Callable
from typing import Self, TextIO

LINE_EVERY = 10.0  # seconds


def clock(seconds: float | None) -> str:
    """Hours, minutes and seconds, as in 1:02:05."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def redraws(stream: TextIO) -> bool:
    """Whether what a stream shows can be drawn again: on a terminal, unless that is a simple one (TERM=dumb).

    rich takes any stream for a terminal where FORCE_COLOR is set, also the log of a job.
    """
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class Bar:
    """Counts up to `total`; the bar vanishes at the end. `visible`: there is a terminal to show it on.

    Args:
        total: None where it is not known yet.
        doing: what is being done.
        shown: False shows nothing.
        after: seconds before the bar appears: what is quick needs none.
        lines: whether a line is printed every `LINE_EVERY` seconds where there is no terminal.
        said: (done, total) -> the text beside the bar.
        stays: whether the last state of the bar stays.
        done: what was done before; it does not count for the time left.
    """

    def __init__(
        self,
        total: float | None,
        doing: str = "",
        *,
        shown: bool = True,
        after: float = 0.0,
        lines: bool = True,
        said: Callable[[float, float | None], str] = lambda done, total: f"{done:.0f} of {total or 0:.0f}",
        stays: bool = False,
        done: float = 0.0,
    ) -> None:
        from rich.console import Console  # rich takes longer to import than `--help` may take in all
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False))
        drawn = console.is_terminal and redraws(sys.stderr)
        self.visible = shown and drawn
        self._bar = Progress(*columns, *times, console=console, transient=not stays, disable=not self.visible)
        self._said, self._lines, self._after = said, lines and shown and not drawn, after
        self.done, self.doing, self._total, self._before = done, doing, total, done
        self._task = self._bar.add_task(doing, total=total, said="")
        self._started = self._line_at = time.monotonic()

    def __enter__(self) -> Self:
        self.update(self.done)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, amount: float = 1.0, doing: str | None = None) -> None:
        """Add to what is done."""
        self.update(self.done + amount, doing)

    def update(self, done: float, doing: str | None = None) -> None:
        """Set what is done."""
        self.done, self.doing = done, self.doing if doing is None else doing
        now, said = time.monotonic(), self._said(done, self._total)
        self._bar.update(self._task, completed=done, description=self.doing, said=said)
        if not self._bar.live.is_started and now - self._started >= self._after:
            self._bar.start()
        if self._lines and now - self._line_at > LINE_EVERY:
            self._line_at = now
            here = done - self._before
            left = (now - self._started) / here * (self._total - done) if here and self._total else None
            print(f"{self.doing}: {said}, {clock(left)} left", file=sys.stderr, flush=True)
