"""Cells of text under headers: aligned lines in files and pipes, a table in colours on a terminal."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    least: Sequence[str] = ()
    """Headers of the columns that a narrow terminal leaves out, the last one first."""

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

        console = Console(file=file)
        console.print(self.within(console.width).rich())

    def within(self, width: int) -> "Table":
        """The same in lines of at most `width` characters: without the columns of `least`, or else a line a cell."""
        gone = next(
            (n for n in range(len(self.least) + 1) if self._without(n).width + 2 <= width), None
        )  # rich's padding
        if gone is None or (gone and len(self.rows) == 1):
            return self._listed()
        named = f"not shown: {', '.join(self.least[len(self.least) - gone :])}"
        title = f"{self.title}; {named}" if self.title else named
        return replace(self._without(gone), title=title) if gone else self

    @property
    def width(self) -> int:
        """Of its longest line, without the title, in characters."""
        return max(map(len, replace(self, title="").plain().splitlines()))

    def _without(self, count: int) -> "Table":
        """All but the last `count` of `least`."""
        gone = self.least[len(self.least) - count :]
        kept = [i for i, header in enumerate(self.headers) if header not in gone]
        rows = [[row[i] for i in kept] for row in self.rows]
        return replace(self, headers=[self.headers[i] for i in kept], rows=rows)

    def _listed(self) -> "Table":
        """A line a cell, under no headers; an empty line between rows."""
        rows, styles = list[Sequence[str]](), list[str]()
        for i, row in enumerate(self.rows):
            rows += [*([("", "")] if i else []), *zip(self.headers, row, strict=True)]
            styles += [self.styles[i] if i < len(self.styles) else ""] * (len(rows) - len(styles))
        return Table(self.title, ("", ""), rows, left=2, styles=styles)

    def rich(self) -> Any:
        """The same as a `rich.table.Table`."""
        from rich.table import Table as RichTable
        from rich.text import Text

        title, padding = self.title or None, (0, 2, 0, 0)
        look: dict[str, Any] = {"title_style": "bold", "box": None, "padding": padding}
        table = RichTable(title=title, title_justify="left", show_header=any(self.headers), **look)
        for i, header in enumerate(self.headers):
            table.add_column(Text(header), justify=self._justify(i), overflow="fold", no_wrap=i >= self.left)
        for i, row in enumerate(self.rows):
            # Text: a value such as `[a,b]` is not markup.
            table.add_row(*map(Text, row), style=self.styles[i] if i < len(self.styles) else None)
        return table
