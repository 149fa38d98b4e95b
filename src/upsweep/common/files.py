"""Files that are whole or not there: written beside, flushed to the disk, renamed."""

import csv
import glob
import io
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from upsweep.common.errors import UserError

PART = ".part"  # the ending of a file's name while the file is being written
FORMULA = (*"=+-@\t\r\n", *"\uff1d\uff0b\uff0d\uff20")  # what a formula starts with; the last four are the wide =+-@
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_count = itertools.count()


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write a file or a folder to; it is renamed to `path` if the block succeeds.

    Whoever reads `path` finds the old content or the whole of the new one, also after a power cut: what was written is
    flushed to the disk before the rename, and the folder above after it. A folder never replaces one with content.
    """
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}-{next(_count)}{PART}")
    try:
        yield beside
        for written in (beside, *beside.rglob("*")):
            _flush(written)
        beside.replace(path)
        _flush(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write does not say where it failed
        raise
    finally:
        _remove(beside)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed processes left in a folder while they wrote `name`, or anything.

    The caller holds a lock.
    """
    written = "*" if name is None else glob.escape(name[:100])
    for beside in folder.glob(f".{written}.*[0-9]-*[0-9]{PART}"):
        _remove(beside)


def write_whole(path: Path, content: str | bytes | Iterable[bytes | bytearray | memoryview]) -> Path:
    """Write text (UTF-8), bytes, or parts of bytes, as `whole` does; `path`.

    Names of files in a text that are not UTF-8 become the bytes that they are.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogateescape")
    with whole(path) as beside, beside.open("wb") as file:
        file.writelines([content] if isinstance(content, bytes) else content)
    return path


def hold_to_new(folder: Path, overwrite: bool) -> None:
    """Raise UserError where an output folder holds files already, unless they may be replaced."""
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} already exists and has files; overwrite=true replaces those of the same names, "
            "output=... writes elsewhere."
        )


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """The lines of a CSV file without formulas: a spreadsheet would run `=cmd`, so it becomes `'=cmd`."""
    return "".join(map(_csv_line, rows))


def _csv_line(row: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(map(_harmless, row))  # so that a cell with either is quoted
    return text.getvalue().removesuffix("\r\n") + "\n"


def _harmless(cell: object) -> object:
    if cell is None or isinstance(cell, int | float):
        return cell
    text = str(cell)
    return f"'{text}" if text.startswith(FORMULA) and not NUMBER.fullmatch(text) else text


def read_cell(cell: str) -> str:
    """A cell of such a file as it was before it was made harmless.

    >>> read_cell("'=cmd"), read_cell("'s"), read_cell("-0.5")
    ('=cmd', "'s", '-0.5')
    """
    said = cell.removeprefix("'")
    return said if said != _harmless(said) else cell


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Flush to the disk. Some systems cannot flush a folder: that is ignored."""
    folder = path.is_dir()
    with suppress(OSError) if folder else nullcontext():
        descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
