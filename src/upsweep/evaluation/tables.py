"""The table of a paper, as CSV, Markdown, LaTeX and on the terminal: a row a method, columns of what it reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from upsweep.common.files import as_csv, write_whole
from upsweep.common.table import Table
from upsweep.metrics.figure import Figure

MEASURED = "measured"
# What a method costs: the header in a table, the column in a CSV (a field of Row), the form.
COSTS = (
    ("parameters", "parameters", ",d"),
    ("MACs/pixel", "macs_per_pixel", ",.0f"),
    ("ms", "milliseconds", ",.1f"),
    ("MB", "megabytes", ",.1f"),
)
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


@dataclass(frozen=True)
class Cell:
    """Figures of a method by their names, as far as they are known; `status` says how well published ones stand."""

    values: Mapping[str, float]
    mark: str = ""
    status: str = MEASURED


@dataclass(frozen=True)
class Column:
    """What a column of results holds.

    Attributes:
        title: its header.
        figures: of every cell.
        prefix: of their names in a CSV: `set5_`.
        between: two of them in a table.
    """

    title: str
    figures: Sequence[Figure]
    prefix: str = ""
    between: str = "/"

    def text(self, cell: Cell | None) -> str:
        """A cell in words: `33.66/0.9299`."""
        if cell is None:
            return "-"
        return self.between.join(figure.format(cell.values.get(figure.name)) for figure in self.figures) + cell.mark


@dataclass(frozen=True)
class Row:
    """A method: its figures by the title of the column, its size and speed as far as they are known."""

    method: str
    cells: Mapping[str, Cell]
    parameters: int | None = None  # of the generator
    macs_per_pixel: float | None = None  # multiply-adds per output pixel
    milliseconds: float | None = None  # as in `speed.Speed`
    megabytes: float | None = None  # as in `speed.Speed`
    checkpoint: str = ""  # where its weights are

    @property
    def source(self) -> str:
        """`measured`, or `published` and what the figures rest on (where that differs, by column)."""
        resting: dict[str, list[str]] = {}
        for title, cell in self.cells.items():
            resting.setdefault(cell.status, []).append(title)
        if len(resting) > 1:
            return "published, " + "; ".join(f"{', '.join(titles)}: {status}" for status, titles in resting.items())
        return MEASURED if MEASURED in resting else f"published, {''.join(resting)}"


@dataclass(frozen=True)
class Judged:
    """An image of a benchmark: a method's figures of it, and the file of its picture, if one was drawn."""

    method: str
    benchmark: str  # its title
    image: str
    values: Mapping[str, float] = field(default_factory=dict)
    picture: Path | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows that were judged alike.

    Attributes:
        name: of the files: `table_x2`.
        caption: what a reader must know to compare the figures with others.
        columns: of results.
        rows: a method each.
        known: what else a CSV says of every row, by its header: the scale, the protocol.
        images: what the rows come from, image by image.
    """

    name: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    known: Mapping[str, object] = field(default_factory=dict)
    images: Sequence[Judged] = ()

    def write(self, folder: Path) -> None:
        """Write the table as CSV, Markdown and LaTeX into a folder."""
        for suffix, text in (("csv", self.csv()), ("md", self.markdown()), ("tex", self.latex())):
            write_whole(folder / f"{self.name}.{suffix}", text)

    def table(self) -> Table:
        """For the terminal, with those columns of what a method costs that hold anything."""
        costs = [cost for cost in COSTS if any(getattr(row, cost[1]) is not None for row in self.rows)]
        lines = []
        for row in self.rows:
            cells = [column.text(row.cells.get(column.title)) for column in self.columns]
            known = [(getattr(row, key), form) for _, key, form in costs]
            prices = ["-" if x is None else format(x, form) for x, form in known]
            lines.append([row.method, *cells, *prices, row.source])
        titles = [column.title for column in self.columns]
        return Table(self.caption, ["method", *titles, *(header for header, _, _ in costs), "source"], lines)

    def markdown(self) -> str:
        """A GitHub table under its caption."""
        table = self.table()
        words = ["---", *["---:"] * (len(table.headers) - 2), "---"]
        lines = ["| " + " | ".join(line) + " |" for line in (table.headers, words, *table.rows)]
        return "\n".join([table.title, "", *lines]) + "\n"

    def latex(self) -> str:
        """A table environment for `\\usepackage{booktabs}`."""
        table = self.table()
        head, *rows = (" & ".join(map(_escaped, line)) + r" \\" for line in (table.headers, *table.rows))
        return "\n".join(
            [
                r"% needs \usepackage{booktabs}",
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{_escaped(table.title)}}}",
                rf"\label{{tab:{self.name.removeprefix('table_')}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 2)}l}}",
                r"\toprule",
                head,
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )

    def csv(self) -> str:
        """Unrounded numbers, a row a method, with where they are from."""
        headers = [f"{column.prefix}{figure.name}" for column in self.columns for figure in column.figures]
        lines: list[list[object]] = [
            ["method", *self.known, *headers, *(key for _, key, _ in COSTS), "source", "checkpoint"]
        ]
        for row in self.rows:
            values = self.values(row)
            figures = [values.get(header, "") for header in headers]
            costs = [getattr(row, key) for _, key, _ in COSTS]
            lines.append([row.method, *self.known.values(), *figures, *costs, row.source, row.checkpoint])
        return as_csv(lines)

    def values(self, row: Row) -> dict[str, float]:
        """A row's figures, as far as they are known, by their headers in a CSV: `set5_psnr`."""
        return {
            f"{column.prefix}{figure.name}": cell.values[figure.name]
            for column in self.columns
            if (cell := row.cells.get(column.title)) is not None
            for figure in column.figures
            if figure.name in cell.values
        }


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
