"""CSV files as people have them: with commas, semicolons or tabs, a byte order mark, and cells made harmless."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.files import NUMBER, read_cell

DELIMITERS = ",;\t"


@dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """A line of a table: column -> cell. `comma`: numbers may have a decimal comma, as where semicolons part cells."""

    path: Path
    line: int
    cells: Mapping[str, str]
    comma: bool = False

    def text(self, column: str) -> str:
        """The cell; empty where the table has no such column."""
        return self.cells.get(column, "")

    def number(self, column: str) -> float | None:
        """The cell as a number; None where it is empty, or nan. Raises UserError: it is none."""
        text = self.text(column)
        if text.lower() in ("", "nan"):
            return None
        if (found := as_number(text, self.comma)) is None:
            raise UserError(f"{self.place(column)} is {text!r}, which is not a number.")
        return found

    def whole(self, column: str) -> int | None:
        """The same for whole numbers, `2` or `2.0`."""
        found = self.number(column)
        if found is not None and found != int(found):
            raise UserError(f"{self.place(column)} is {self.text(column)}, which is not a whole number.")
        return None if found is None else int(found)

    def place(self, column: str) -> str:
        """Where a cell is, for the start of a sentence."""
        return f"{self.path}, line {self.line}: {column}"


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """A file with its columns and rows, of which there are some."""

    path: Path
    columns: Sequence[str]
    rows: Sequence[Row]


def as_number(text: str, comma: bool = False) -> float | None:
    """A finite number, or None."""
    text = text.replace(",", ".") if comma else text
    number = float(text) if NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def read_table(path: Path) -> CsvTable:
    """Read a CSV file. Columns without a name (an index) are left out.

    Raises UserError: it cannot be read, has no rows, two columns of one name, or a row of another length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(DELIMITERS, key=header.count)
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, [read_cell(cell.strip()) for cell in line]) for line in reader if any(line)]
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): give the path of a CSV file, of several '[a.csv,b.csv]'."
        ) from error
    except (UnicodeError, csv.Error) as error:
        raise UserError(f"{path} is not a CSV file in UTF-8 ({error}): save it as one.") from error
    if len(lines) < 2:
        raise UserError(f"{path} has no rows: it needs a line with the names of the columns, and a line for each run.")
    (_, columns), *rows = lines
    if twice := next((name for name in columns if name and columns.count(name) > 1), None):
        raise UserError(f"{path} has two columns {twice}: rename or remove one.")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise UserError(f"{path}, line {line}: it has {len(cells)} cells for {len(columns)} columns.")
    return CsvTable(
        path=path,
        columns=[name for name in columns if name],
        rows=[
            Row(
                path=path,
                line=line,
                cells={name: cell for name, cell in zip(columns, cells, strict=True) if name},
                comma=delimiter == ";",
            )
            for line, cells in rows
        ],
    )
