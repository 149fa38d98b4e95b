"""The table of a paper, as CSV, Markdown, LaTeX and on the terminal: a row a method, a column a data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from upsweep.common.files import as_csv
from upsweep.common.table import Table
from upsweep.metrics.protocol import Protocol

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
    """PSNR (dB) and SSIM of a method on a data set; `status` of a published one says what it rests on."""

    psnr: float
    ssim: float
    mark: str = ""
    status: str = MEASURED

    def __str__(self) -> str:
        return f"{self.psnr:.2f}/{self.ssim:.4f}{self.mark}"


@dataclass(frozen=True)
class Row:
    """A method: its figures by data set, its size and speed as far as they are known."""

    method: str
    cells: Mapping[str, Cell]
    parameters: int | None = None  # of the generator
    macs_per_pixel: float | None = None  # multiply-adds per output pixel
    milliseconds: float | None = None  # as in `speed.Speed`
    megabytes: float | None = None  # as in `speed.Speed`
    checkpoint: str = ""  # where its weights are

    @property
    def source(self) -> str:
        """`measured`, or `published` and what the figures rest on (where that differs, by data set)."""
        resting: dict[str, list[str]] = {}
        for dataset, cell in self.cells.items():
            resting.setdefault(cell.status, []).append(dataset)
        if len(resting) > 1:
            return "published, " + "; ".join(f"{', '.join(sets)}: {status}" for status, sets in resting.items())
        return MEASURED if MEASURED in resting else f"published, {''.join(resting)}"


@dataclass(frozen=True)
class Comparison:
    """All rows at one scale under one protocol."""

    scale: int
    protocol: Protocol
    datasets: Sequence[str]  # the columns, by their titles
    rows: Sequence[Row]
    timed: str = ""  # how time and memory were taken; empty where they were not

    @property
    def caption(self) -> str:
        """What a reader must know to compare the figures with others."""
        said = [
            f"Mean PSNR in dB / SSIM at x{self.scale}",
            f"protocol {self.protocol.name}: {described(self.protocol)}",
        ]
        if self.protocol != Protocol():
            said.append("published figures are left out, as they hold under the papers' protocol only")
        if any(cell.mark for row in self.rows for cell in row.cells.values()):
            said.append("*: marked so where the figure was collected")
        if self.timed:
            said.append(self.timed)
        return "; ".join(said) + "."

    def table(self) -> Table:
        """For the terminal, with those columns of what a method costs that hold anything."""
        costs = [cost for cost in COSTS if any(getattr(row, cost[1]) is not None for row in self.rows)]
        lines = []
        for row in self.rows:
            cells = [str(row.cells.get(name, "-")) for name in self.datasets]
            known = [(getattr(row, key), form) for _, key, form in costs]
            prices = ["-" if x is None else format(x, form) for x, form in known]
            lines.append([row.method, *cells, *prices, row.source])
        return Table(self.caption, ["method", *self.datasets, *(header for header, _, _ in costs), "source"], lines)

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
                rf"\label{{tab:x{self.scale}}}",
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
        columns = [f"{name.lower().replace(' ', '_')}_{what}" for name in self.datasets for what in ("psnr", "ssim")]
        lines: list[list[object]] = [
            ["method", "scale", "protocol", *columns, *(key for _, key, _ in COSTS), "source", "checkpoint"]
        ]
        for row in self.rows:
            cells = [row.cells.get(name) for name in self.datasets]
            figures = [x for cell in cells for x in ((cell.psnr, cell.ssim) if cell else ("", ""))]
            costs = [getattr(row, key) for _, key, _ in COSTS]
            lines.append([row.method, self.scale, self.protocol.name, *figures, *costs, row.source, row.checkpoint])
        return as_csv(lines)


def described(protocol: Protocol) -> str:
    """A protocol in words."""
    compared = {"y": "luma of BT.601 in studio range", "y_full": "luma of BT.601 in full range", "rgb": "RGB"}
    rounding = "" if protocol.space == "rgb" else ", rounded" if protocol.round_y else ", not rounded"
    border = "the scale's width" if protocol.shave is None else f"{protocol.shave} pixels"
    stored = {"double": "of the luma, not rounded", "uint8": "of RGB, as uint8 images"}[protocol.lr]
    return (
        f"{compared[protocol.space]}{rounding}, {border} shaved from every border, LR by MATLAB-style bicubic {stored}"
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in text)
