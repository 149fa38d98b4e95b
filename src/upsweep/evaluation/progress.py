"""How far something long is: a bar with the time left on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY = 10.0  # seconds


Advance = Callable[[str], None]
"""Says that one more is done, and of what."""


@contextmanager
def progress(total: int, shown: bool = True) -> Iterator[Advance]:
    """Count up to `total` on stderr; the bar vanishes at the end."""
    console = Console(stderr=True)
    started, done, said = time.monotonic(), 0, time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("left"))
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not (shown and console.is_terminal)
    )
    task = bar.add_task("", total=total)

    def advance(doing: str) -> None:
        nonlocal done, said
        done += 1
        bar.update(task, completed=done, description=doing)
        now = time.monotonic()
        if shown and bar.disable and now - said > LINE_EVERY:
            said = now
            left = (now - started) / done * (total - done)
            print(f"{doing}: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)

    with bar:
        yield advance
