"""Results from tables alone (results.csv): a sweep's own, another lab's, or several together.

A column is a figure, what is known to be none of the choices (`job`, `seconds`), a measurement, or a choice. What tells
yardsticks apart (`scale`, `protocol`, `data`) stays a setting, so that figures on different ones are never mixed.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from upsweep.analysis.csv_tables import CsvTable, Row, as_number, read_table
from upsweep.analysis.ranking import gathered
from upsweep.analysis.study import MOST_VALUES, UNKNOWN
from upsweep.analysis.tables import BY_HAND, LAST, MEASURED
from upsweep.analysis.together import SWEEP
from upsweep.analysis.yardsticks import JUDGED, moves_yardstick
from upsweep.common.errors import UserError
from upsweep.common.names import listed
from upsweep.metrics.figure import Better, Figure
from upsweep.runs.result import FIGURES_OF_VERSION_1, HOW_IT_WENT_ON, TUNED, Result, State

NEARLY_ALL = 0.9  # of a column's cells: if so many are different, no two runs share one, as they do a choice
LOST = ("nan", "inf", "infinity")  # cells of what is no number any more
# What docs/claims.py adds from the runs' diagnoses, and from their explanations.
DIAGNOSED = ("reach", "dead", "saturated", "train_gain", "gap", "seconds_per_megapixel")
EXPLAINED = ("di", "field", "effective_field", "restored", "invented", "checkerboard")
NO_FIGURE = ("job", "seed", "state")
NO_CHOICE = {"job", SWEEP, "seed", JUDGED, BY_HAND, *MEASURED, *HOW_IT_WENT_ON}


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the columns of a table mean, as far as a person says it.

    Attributes:
        figure: the column that is compared; that of the last epoch is `<figure>_last`.
        choices: those that are compared; None: all that are known to be nothing else.
        tuned: columns that are no choices, beside optimizer.lr: every choice stands at its own best value.
        better, unit: of the figure; None: `higher` and none, or as is known of PSNR and SSIM.
    """

    figure: str = "psnr"
    choices: Sequence[str] | None = None
    tuned: Sequence[str] = ()
    better: Better | None = None
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class FromTables:
    """Results by the names of their rows; `notes` say how the tables were read."""

    results: dict[str, Result]
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What the columns of all tables are: `figures` and `baselines` column -> figure, the headline first."""

    figures: Mapping[str, Figure]
    baselines: Mapping[str, Figure]
    settings: Sequence[str]
    choices: Sequence[str]
    tuned: Sequence[str]
    measurements: Sequence[str]
    last: bool


@dataclass(frozen=True, kw_only=True)
class Part:
    """What counts of one table: rows that no earlier one has; its seeds are counted on by `shift`."""

    table: CsvTable
    label: str
    rows: Sequence[Row]
    shift: int = 0


def results_of(paths: Sequence[Path], meaning: Meaning | None = None) -> FromTables:
    """The results that these CSV files tell of.

    A seed of one file is another repetition than the same seed of another one, unless they share rows: these are one
    sweep's, and a row counts once. A setting that a file does not tell is `?`, which is compared with nothing.

    Raises UserError: a file cannot be read, or lacks what must be there; a cell or a name is not as it must be.
    """
    meaning = meaning or Meaning()
    tables = [read_table(path) for path in paths]
    for table in tables:
        _hold_to_required(table, meaning.figure)
    there = list(dict.fromkeys(column for table in tables for column in table.columns))
    _hold_to_meaning(meaning, there)
    columns = _columns(tables, there, meaning)
    parts = _parts(tables, meaning.figure)
    results: dict[str, Result] = {}
    for part in parts:
        for name, row in _named(part, several=len(parts) > 1):
            results[name] = _result(row, part, columns)
    return FromTables(results=results, notes=_notes(tables, parts, columns))


def _hold_to_required(table: CsvTable, figure: str) -> None:
    for needed in ("seed", "state", figure):
        if needed not in table.columns:
            hint = {
                "seed": "add one, with the same number in every row if there was one seed",
                "state": f"add one, each of whose cells is one of {', '.join(get_args(State))}",
            }.get(needed, "name the column that is compared with figure=NAME")
            raise UserError(f"{table.path} has no column {needed}: {hint}. It has {', '.join(table.columns)}.")


# ------------------------------------------------------------------------------------------------ columns


def _hold_to_meaning(meaning: Meaning, there: Sequence[str]) -> None:
    """What a person says of columns must be of columns that are there, and that can be that."""
    asked, choices, tuned = meaning.figure, meaning.choices or [], [*TUNED, *meaning.tuned]
    figures = {asked, *(figure.name for figure in FIGURES_OF_VERSION_1)}
    for option, names in (("tuned", meaning.tuned), ("choices", choices)):
        if unknown := next((name for name in names if name not in there), None):
            raise UserError(f"{option}={unknown}: there is no such column, only {', '.join(there)}.")
    if asked in (*NO_FIGURE, *TUNED):
        raise UserError(f"figure={asked}: that column is not a figure: name the one that is compared, such as psnr.")
    if wrong := next((c for c in meaning.tuned if c in NO_CHOICE | figures or moves_yardstick(c)), None):
        raise UserError(f"tuned={wrong}: that column is not a setting with a best value to pick, such as optimizer.lr.")
    if meaning.choices is not None and not choices:
        raise UserError("choices=[] is empty: name the columns to compare, or leave it out for all.")
    if wrong := next((c for c in choices if c in ("seed", "state", *figures, *tuned)), None):
        raise UserError(f"choices={wrong}: that column is not a choice: name one that is, such as init.")
    if twice := next((c for c in choices if choices.count(c) > 1), None):
        raise UserError(f"choices=[{','.join(choices)}] names {twice} twice: name it once.")


def _columns(tables: Sequence[CsvTable], there: Sequence[str], meaning: Meaning) -> Columns:
    rows = [row for table in tables for row in table.rows]
    figures = _figures(there, rows, meaning)
    tuned = [*dict.fromkeys([*TUNED, *meaning.tuned])]
    yardsticks = [column for column in there if moves_yardstick(column)]
    free = [
        column
        for column in there
        if column not in (*tuned, *yardsticks)
        and not _is_none(column, figures)
        and not _is_taken_as_given(column, tables)
    ]
    measurements: list[str] = []
    if meaning.choices is None:
        ends = {column for column in free if f"{column.removesuffix(LAST)}{LAST}" in there}  # figures not asked for
        measurements = [column for column in free if column in ends or _is_measured(column, rows)]
        choices = [column for column in free if column not in measurements and not _follows(column, tables)]
    else:
        choices = [*meaning.choices]
    settings = [column for column in there if column in choices or column in tuned or column in yardsticks]
    return Columns(
        figures=figures,
        baselines={f"{column}_{f.baseline}": f for column, f in figures.items() if f.baseline is not None},
        settings=settings,
        choices=[column for column in choices if column not in yardsticks],
        tuned=tuned,
        measurements=measurements,
        last=all(f"{meaning.figure}{LAST}" in table.columns for table in tables),
    )


def _figures(there: Sequence[str], rows: Sequence[Row], meaning: Meaning) -> dict[str, Figure]:
    """Column -> figure, the one that is compared first, then those that are known everywhere."""
    known = {figure.name: figure for figure in FIGURES_OF_VERSION_1}
    asked = meaning.figure
    headline = known.get(asked) or Figure(
        name=re.sub(r"^(?=\d)|\W", "_", asked), title=asked, digits=_digits([_figure(row, asked) for row in rows])
    )
    said = {"better": meaning.better, "unit": meaning.unit}
    headline = replace(headline, **{key: value for key, value in said.items() if value is not None})  # type: ignore[arg-type]
    found = {asked: headline} | {name: figure for name, figure in known.items() if name in there and name != asked}
    baseline = FIGURES_OF_VERSION_1[0].baseline
    return {c: replace(f, baseline=baseline if f"{c}_{baseline}" in there else None) for c, f in found.items()}


def _digits(values: Sequence[float | None]) -> int:
    """After the point, that show three of what values differ by."""
    known = [value for value in values if value is not None]
    spread = max(known, default=0.0) - min(known, default=0.0)
    return min(max(2, 2 - math.floor(math.log10(spread))), 8) if spread > 0 else 2


def _is_none(column: str, figures: Mapping[str, Figure]) -> bool:
    """Whether a column is known to be no choice."""
    of_figures = {n for name, f in figures.items() for n in (name, f"{name}{LAST}", f"{name}_{f.baseline}", f.margin)}
    return column in NO_CHOICE or column in of_figures


def _is_taken_as_given(column: str, tables: Sequence[CsvTable]) -> bool:
    """Whether nothing differs in a column: it is empty, or has one value, and some of the tables do not have it.

    A sweep's own table says every choice, also those on which its jobs agree; of a table without that column they are
    not known, and nothing could be compared.
    """
    values = {row.text(column) for table in tables if column in table.columns for row in table.rows}
    return not values - {""} or (len(values) == 1 and not all(column in table.columns for table in tables))


def _follows(column: str, tables: Sequence[CsvTable]) -> bool:
    """Whether a column follows from what command lines set, where all tables tell what that is: FSRCNN's activation."""
    rows = [row for table in tables for row in table.rows]
    by_hand = {key for row in rows for key in row.text(BY_HAND).split()} - {"seed"}
    if column in by_hand or not all(BY_HAND in table.columns for table in tables):
        return False
    groups = gathered(rows, lambda row: tuple(row.text(key) for key in sorted(by_hand))).values()
    return all(len({row.text(column) for row in group}) == 1 for group in groups)


def _values(column: str, rows: Sequence[Row]) -> list[str]:
    return [text for row in rows if (text := row.text(column))]


def _is_measured(column: str, rows: Sequence[Row]) -> bool:
    """Whether these are measurements, or names of the rows: no two runs share one. `generator.width` is a key."""
    values = [value for value in _values(column, rows) if not _is_lost(value)]
    different = len(set(values))
    if column in (*DIAGNOSED, *EXPLAINED):
        return True
    if "." in column or different < 2:
        return False
    unlike, many = different >= NEARLY_ALL * len(values), different > MOST_VALUES
    numbers = [as_number(value, rows[0].comma) for value in values]
    if None in numbers:
        return unlike and many
    return many or (unlike and any(number != int(number) for number in numbers if number is not None))


# ------------------------------------------------------------------------------------------------ rows


def _parts(tables: Sequence[CsvTable], figure: str) -> list[Part]:
    """The tables, with what each has that no earlier one has, and seeds that are told apart."""
    stems = [table.path.stem for table in tables]
    seeds = [seed for table in tables for row in table.rows if (seed := row.whole("seed")) is not None]
    step = 10 ** len(str(max(seeds, default=0) - min(seeds, default=0) + 1))  # 1, 2, 3 -> 11, 12, 13
    parts: list[Part] = []
    said: list[set[frozenset[tuple[str, str]]]] = []
    for number, table in enumerate(tables):
        mine = [_said(row) for row in table.rows]
        measured = {words for words, row in zip(mine, table.rows, strict=True) if row.text(figure)}
        kin = [
            earlier
            for earlier in range(number)
            if 2 * len(measured & said[earlier]) > min(len(measured), len(said[earlier]))
        ]
        before = set[frozenset[tuple[str, str]]]().union(*(said[earlier] for earlier in kin))
        parts.append(
            Part(
                table=table,
                label=table.path.stem if stems.count(table.path.stem) == 1 else str(table.path.with_suffix("")),
                rows=[row for words, row in zip(mine, table.rows, strict=True) if words not in before],
                shift=parts[kin[0]].shift if kin else number * step,
            )
        )
        said.append(set(mine))
    return parts


def _said(row: Row) -> frozenset[tuple[str, str]]:
    """By what two rows are one run: all but the number in its sweep."""
    return frozenset((column, cell) for column, cell in row.cells.items() if cell and column != "job")


def _named(part: Part, *, several: bool) -> list[tuple[str, Row]]:
    """The rows by their jobs, or by their place where these are not there for all; with the table, if there are two."""
    jobs = [row.text("job") for row in part.table.rows]
    rows = {id(row): place for place, row in enumerate(part.table.rows, 1)}
    name = (lambda row: row.text("job")) if all(jobs) and len(set(jobs)) == len(jobs) else (lambda row: rows[id(row)])
    return [(f"{part.label}/{name(row)}" if several else str(name(row)), row) for row in part.rows]


def _result(row: Row, part: Part, columns: Columns) -> Result:
    seed, scale = row.whole("seed"), row.whole("scale")
    if seed is None:
        raise UserError(f"{row.place('seed')} is empty: every run has one.")
    state = next((known for known in get_args(State) if known == row.text("state")), None)
    if state is None:
        raise UserError(
            f"{row.place('state')} is {row.text('state')!r}: it must be one of {', '.join(get_args(State))}."
        )
    last = {f.name: _figure(row, f"{column}{LAST}") for column, f in columns.figures.items()} if columns.last else {}
    judged = row.text(JUDGED)
    return Result(
        state=state,
        choices={},
        overrides=[*(f"{column}={row.text(column) or UNKNOWN}" for column in columns.settings), f"seed={seed}"],
        seed=seed + part.shift,
        scale=scale,
        reason=row.text("reason") or None,
        declared=tuple(columns.figures.values()),
        figures=_numbers({figure.name: _figure(row, column) for column, figure in columns.figures.items()}),
        last=_numbers(last),
        baseline=_numbers({figure.name: row.number(column) for column, figure in columns.baselines.items()}),
        parameters=row.whole("parameters"),
        macs_per_pixel=row.number("macs_per_pixel"),
        seconds=row.number("seconds"),
        checkpoint=row.text("checkpoint") or None,
        judged_on=f"{part.label}: {judged}" if judged else None,
        tuned=list(columns.tuned),
    )


def _figure(row: Row, column: str) -> float | None:
    """A figure; None where it is not known, as of a run that diverged."""
    return None if row.text("state") == "diverged" and _is_lost(row.text(column)) else row.number(column)


def _is_lost(cell: str) -> bool:
    """Whether a cell says that what was to be there is no number any more."""
    return cell.lower().lstrip("+-") in LOST


def _numbers(said: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in said.items() if value is not None}


# ------------------------------------------------------------------------------------------------ what is told


def _notes(tables: Sequence[CsvTable], parts: Sequence[Part], columns: Columns) -> list[str]:
    """How the tables were read: what can only be guessed is said."""
    rows = [row for table in tables for row in table.rows]
    swept = [column for column in columns.choices if len({row.text(column) for row in rows}) > 1]
    tuned = [column for column in columns.tuned if _values(column, rows)]
    said = [f"The choices are {', '.join(swept)}" if swept else "No choice differs between the rows"]
    said += [f"tuned is {', '.join(tuned)}"] if tuned else []
    if columns.measurements:
        names = ", ".join(columns.measurements)
        said.append(f"no choices, but measurements or names: {names} ('choices=[NAME,...]' says it otherwise)")
    return [
        f"{'; '.join(said)}.",
        *_many(rows, columns),
        *_gaps(tables, columns),
        *_given(tables, columns),
        *_together(parts),
        *_repeated(parts, columns),
    ]


def _many(rows: Sequence[Row], columns: Columns) -> list[str]:
    """Choices of which `effects` compares no values, as these are too many on each yardstick."""
    alike = gathered(rows, lambda row: tuple(row.text(c) for c in columns.settings if moves_yardstick(c))).values()
    counts = {column: max(len(set(_values(column, group))) for group in alike) for column in columns.choices}
    return [
        f"{column} has {count} values, more than {MOST_VALUES}: no two of them are compared."
        for column, count in counts.items()
        if count > MOST_VALUES
    ]


def _gaps(tables: Sequence[CsvTable], columns: Columns) -> list[str]:
    notes = []
    for column in columns.settings:
        without = [str(table.path) for table in tables if not all(row.text(column) for row in table.rows)]
        if without:
            notes.append(
                f"{column} is not known of all runs in {listed(without)}: such runs are {column}={UNKNOWN} here."
            )
    last = f"{next(iter(columns.figures))}{LAST}"
    with_last = [str(table.path) for table in tables if last in table.columns]
    if with_last and not columns.last:
        first = next(iter(columns.figures))
        notes.append(f"Only {listed(with_last)} has {last}: {first} is compared instead, as in all tables.")
    return notes


def _given(tables: Sequence[CsvTable], columns: Columns) -> list[str]:
    """What one table tells and another does not, where that is the same in all rows that tell it."""
    there = dict.fromkeys(column for table in tables for column in table.columns)
    alike = [
        f"{column}={next(row.text(column) for table in tables for row in table.rows if row.text(column))}"
        for column in there
        if not _is_none(column, columns.figures) and column not in columns.settings
        if _is_taken_as_given(column, tables) and any(row.text(column) for table in tables for row in table.rows)
    ]
    return [f"Taken to be the same in tables that do not tell it: {', '.join(alike)}."] if alike else []


def _together(parts: Sequence[Part]) -> list[str]:
    notes = []
    for part in parts:
        if again := len(part.table.rows) - len(part.rows):
            notes.append(f"{again} rows of {part.table.path} are in an earlier table, too, and count once.")
        elif part.shift:
            seeds = sorted(seed for row in part.rows if (seed := row.whole("seed")) is not None)
            notes.append(
                f"The seeds of {part.table.path} are other repetitions than those of the first table: "
                f"seed {seeds[0]} is {seeds[0] + part.shift} here."
            )
    return notes


def _repeated(parts: Sequence[Part], columns: Columns) -> list[str]:
    keys = [(part.shift, *map(row.text, ("seed", *columns.settings))) for part in parts for row in part.rows]
    more = len(keys) - len(set(keys))
    rows = "row repeats" if more == 1 else "rows repeat"
    return [f"{more} {rows} another row's choices and seed: their mean is used."] if more else []
