"""Cells of text under headers: aligned lines in files and pipes, a table in colours on a terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TextIO


@dataclass(frozen=True)
class Table:
    """Cells of text under headers; rows may have a style, for terminals."""

    title: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """The first `left` columns and the last one are words, aligned left; those between are numbers."""
    styles: Sequence[str] = ()

    def _justify(self, column: int) -> Literal["left", "right"]:
        return "left" if column < self.left or column == len(self.headers) - 1 else "right"

    def plain(self) -> str:
        """Aligned lines, as wide as they need to be: for files and pipes."""
        lines = [self.headers, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        formats = [f"{'<' if self._justify(i) == 'left' else '>'}{width}" for i, width in enumerate(widths)]
        aligned = ["  ".join(map(format, line, formats)).rstrip() for line in lines]
        return "\n".join([self.title, *aligned] if self.title else aligned)

    def print(self, file: TextIO | None = None) -> None:
        """Print with rich on a terminal, as plain lines elsewhere."""
        file = sys.stdout if file is None else file
        if not file.isatty():
            print(self.plain(), file=file, flush=True)
            return
        from rich.console import Console  # rich takes longer to import than `--help` may take in all

        Console(file=file).print(self.rich())

    def rich(self) -> Any:
        """The same as a `rich.table.Table`."""
        from rich.table import Table as RichTable
        from rich.text import Text

        title, padding = self.title or None, (0, 2, 0, 0)
        table = RichTable(title=title, title_justify="left", title_style="bold", box=None, padding=padding)
        for i, header in enumerate(self.headers):
            table.add_column(Text(header), justify=self._justify(i), overflow="fold", no_wrap=i >= self.left)
        for i, row in enumerate(self.rows):
            # Text: a value such as `[a,b]` is no markup.
            table.add_row(*map(Text, row), style=self.styles[i] if i < len(self.styles) else None)
        return table
