"""The tables of a sweep: every job, the means over seeds, each choice at its best learning rate; and results.csv."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol, TextIO, TypeVar

from upsweep.analysis.ranking import (
    at_best_rate,
    declared,
    differing,
    finished,
    gathered,
    grouped,
    mean_worth,
    rank,
    rates,
    telling,
    tuned,
)
from upsweep.analysis.together import SWEEP
from upsweep.analysis.yardsticks import jobs_apart, sentences, undeclared
from upsweep.common.files import as_csv, write_whole
from upsweep.common.names import listed
from upsweep.common.table import Table
from upsweep.metrics.figure import TAKEN, Figure
from upsweep.runs.history import VAL
from upsweep.runs.result import Result, State

STYLE: dict[State, str] = {"pruned": "cyan", "stopped": "yellow", "diverged": "magenta", "failed": "red"}
LAST = "_last"  # what a column of the last epoch has after its figure's name
BY_HAND = "by_hand"  # the column of the keys that the command line set: other settings may follow from these
MEASURED = ("parameters", "macs_per_pixel", "seconds", "state", "reason", "checkpoint")

Column = tuple[str, str, Figure, str, Callable[[Result], float | None]]


class Seeded(Protocol):
    """A result, or what else is known of a run."""

    @property
    def seed(self) -> int | None:
        """That of the run."""


S = TypeVar("S", bound=Seeded)


def _numbers(results: Sequence[Result]) -> list[Column]:
    """The columns of figures: title, name in results.csv, figure, sign and value.

    The figures of the best epoch, which are the checkpoint's, and their lead over the baseline; after each the one of
    the last epoch, by which jobs are ranked and compared.
    """
    columns: list[Column] = []
    last = any(result.last for result in results)
    for f in declared(results):
        columns.append((f.title, f.name, f, "", lambda run, f=f: run.figures.get(f.name)))  # type: ignore[misc]
        if last:
            columns.append((f"{f.title} last", f"{f.name}{LAST}", f, "", lambda run, f=f: run.last.get(f.name)))  # type: ignore[misc]
    held = [f for f in declared(results)[:1] if f.baseline]
    return [*columns, *((f"{f.margin} {f.unit}".rstrip(), f.margin, f, "+", partial(_lead, figure=f)) for f in held)]


def _printed(results: Sequence[Result]) -> list[Column]:
    """Those that a printed table has room for: of the last epoch only the headline."""
    columns = _numbers(results)
    headline = columns[0][2] if columns else None
    return [column for column in columns if column[2] is headline or not column[1].endswith(LAST)]


def _lead(result: Result, figure: Figure) -> float | None:
    """The lead in this figure: a job of another task leads in another one."""
    mine = result.headline is not None and result.headline.name == figure.name
    return result.lead(best=True) if mine else None


def job_table(jobs: Mapping[str, Result], title: str = "") -> Table:
    """A row a job, best first: what differs (of one job: what was set by hand), then what it came to."""
    ranked = rank(jobs_apart(jobs))
    results = list(ranked.values())
    numbers = _printed(results)
    columns = [*results[0].by_hand] if len(results) == 1 else differing([result.settings for result in results])
    return Table(
        title=title,
        headers=["job", *columns, *(title for title, *_ in numbers), "parameters", "seconds", "state"],
        rows=[
            [
                name,
                *(result.settings.get(column, "") for column in columns),
                *(figure.format(value(result), sign) for _, _, figure, sign, value in numbers),
                "-" if result.parameters is None else f"{result.parameters:,}",
                "-" if result.seconds is None else f"{result.seconds:.1f}",
                result.state,
            ]
            for name, result in ranked.items()
        ],
        left=1 + len(columns),
        least=[*(title for title, *_ in numbers[1:]), "parameters", "seconds"],
        styles=[STYLE.get(result.state, "") for result in results],
    )


def seed_table(jobs: Mapping[str, Result], title: str = "") -> Table | None:
    """A row a set of choices: mean ± sample sd over the seeds that finished; None where no seeds were swept."""
    if seeds_of(jobs.values()) < 2:
        return None
    results = list(jobs_apart(jobs).values())
    return _spread_table(results, telling(results, but=["seed"]), title)


def tuned_table(jobs: Mapping[str, Result], title: str = "") -> Table | None:
    """As `seed_table`, each choice at its best learning rate; None where no rates, or no choices beside, were swept."""
    results = list(jobs_apart(jobs).values())
    columns = telling(results, but=(*tuned(results), "seed"))
    if not columns or not rates(results):
        return None
    return _spread_table(at_best_rate(results), columns, title, rates(results))


def _spread_table(results: Sequence[Result], columns: Sequence[str], title: str, tried: Sequence[str] = ()) -> Table:
    """`tried`: what seeds of one row may differ in, all of their values are told."""
    numbers = _printed(results)
    groups = [(key, group, finished(group)) for key, group in grouped(results, columns).items()]
    return Table(
        title=title,
        headers=[*columns, *tried, *(title for title, *_ in numbers), "seeds"],
        rows=[
            [
                *key,
                *(_values(every, rate) for rate in tried),
                *(spread(figure, of_seeds(done, value), sign) for _, _, figure, sign, value in numbers),
                f"{seeds_of(done)} of {seeds_of(every)}",
            ]
            for key, every, done in sorted(groups, key=lambda group: -mean_worth(group[-1]))
        ],
        left=len(columns) + len(tried),
        least=[title for title, *_ in numbers[1:]],
    )


def _values(results: Iterable[Result], key: str) -> str:
    """`0.001, 0.004`: the most frequent first."""
    return ", ".join(value for value, _ in Counter(result.settings.get(key, "") for result in results).most_common())


def of_seeds(results: Iterable[S], value: Callable[[S], float | None]) -> list[float]:
    """A value for each seed: runs of the same seed (a sweep that was run twice) are one repetition, with their mean."""
    known = [(result.seed, told) for result in results if (told := value(result)) is not None]
    return [statistics.fmean(one for _, one in of_seed) for of_seed in gathered(known, lambda pair: pair[0]).values()]


def seeds_of(results: Iterable[Seeded]) -> int:
    """How many seeds these have."""
    return len({result.seed for result in results})


def spread(figure: Figure, values: Iterable[float | None], sign: str = "") -> str:
    """Mean ± sample sd of the values that are known: `34.04 ± 0.02`; of one, that alone."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return figure.format(known[0] if known else None, sign)
    return f"{figure.format(statistics.fmean(known), sign)} ± {figure.format(statistics.stdev(known))}"


def at_the_best(results: Sequence[Result]) -> str:
    """Of a caption: `at the best optimizer.lr of each choice`."""
    return f"at the best {' and '.join(rates(results))} of each choice"


def print_results(jobs: Mapping[str, Result], file: TextIO | None = None) -> None:
    """Print the ranked table, those over seeds and at best rates where they were swept; then what is to be known of it.

    That is which jobs were judged on different images, and why jobs did not finish.
    """
    done = len(finished(jobs.values()))
    for table in (
        job_table(jobs, f"{done} of {len(jobs)} jobs finished" if len(jobs) > 1 else ""),
        seed_table(jobs, "mean ± sample sd over seeds"),
        tuned_table(jobs, f"{at_the_best(list(jobs.values()))}: mean ± sample sd over seeds"),
    ):
        if table is not None:
            table.print(file)
    for sentence in sentences(jobs):
        print(sentence, file=file, flush=True)
    for name, result in jobs.items():
        if result.reason is not None:
            print(f"job {name} {result.state}: {result.reason}", file=file, flush=True)
    below = [f"job {name} ({result.below})" for name, result in jobs.items() if result.below]
    if below:
        print(f"Better without a network: {listed(below)}", file=file, flush=True)


def write_table(path: Path, jobs: Mapping[str, Result], sweeps: Mapping[str, str] | None = None) -> Path:
    """Write `results_table` to `path` as CSV, whole or not at all."""
    return write_whole(path, as_csv(results_table(jobs, sweeps)))


def results_table(jobs: Mapping[str, Result], sweeps: Mapping[str, str] | None = None) -> list[list[object]]:
    """The ranked table with unrounded numbers: its header, then a row a job; also figures that nobody declares.

    Every choice is a column, also where all jobs agree: another table may stand beside this one. `sweeps` says of each
    job which sweep it is of, where there are several.
    """
    ranked = rank(jobs_apart(jobs))
    held = [figure for figure in declared(ranked.values()) if figure.baseline]
    numbers = _numbers(list(ranked.values()))
    columns = [key for key in dict.fromkeys(k for result in ranked.values() for k in result.settings) if key != SWEEP]
    others = undeclared(list(ranked.values()))
    header = [name for _, name, *_ in numbers] + [f.baseline_name for f in held]
    header += [f"{_apart(name, [*columns, *header])}{end}" for name in others for end in ("", LAST)]
    rows = [
        [
            name,
            *([sweeps[name]] if sweeps else []),
            *(result.settings.get(column, "") for column in columns),
            *(value(result) for *_, value in numbers),
            *(result.baseline.get(figure.name) for figure in held),
            *(of_one.get(name) for name in others for of_one in (result.figures, result.last)),
            *(getattr(result, key) for key in MEASURED),
            " ".join(result.by_hand),
        ]
        for name, result in ranked.items()
    ]
    return [["job", *([SWEEP] if sweeps else []), *columns, *header, *MEASURED, BY_HAND], *rows]


def _apart(figure: str, columns: Sequence[str | None]) -> str:
    """The column of a figure that is not declared: no other column has its name."""
    return f"{VAL}{figure}" if figure in (*TAKEN, *columns) else figure
