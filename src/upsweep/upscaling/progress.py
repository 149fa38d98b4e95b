"""How far the enlarging is: a bar with the time left on a terminal, lines elsewhere."""

import sys
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from upsweep.imaging.files import Picture
from upsweep.upscaling.files import Enlarge
from upsweep.upscaling.picture import Upscaler

LINE_EVERY = 10.0  # seconds, for a picture that takes long, where there is no terminal


class Shown:
    """Says which files are done, and how far the present one is.

    Args:
        files: how many there are.
    """

    def __init__(self, files: int) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.1f} of {task.total:.0f}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=files)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line on stdout, above the bar."""
        print(line, flush=True)

    def watched(self, upscaler: Upscaler) -> Enlarge:
        """`upscaler`, with its progress shown."""

        def enlarge(picture: Picture, name: str) -> Picture:
            done, said = 0.0, time.monotonic()
            self.bar.update(self.task, description=name)

            def advance(share: float) -> None:
                nonlocal done, said
                done += share
                self.bar.advance(self.task, share)
                if self.bar.disable and time.monotonic() - said > LINE_EVERY:
                    said = time.monotonic()
                    print(f"{name}: {done:.0%}", file=sys.stderr, flush=True)

            return upscaler(picture, advance)

        return enlarge
