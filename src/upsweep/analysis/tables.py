"""The tables of a sweep: every job, the means over seeds, each choice at its best learning rate; and results.csv."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from upsweep.analysis.ranking import TUNED, at_best_rate, declared, differing, finished, grouped, mean_worth, rank
from upsweep.analysis.yardsticks import jobs_apart, sentences
from upsweep.common.files import as_csv, write_whole
from upsweep.common.table import Table
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result, State

STYLE: dict[State, str] = {"pruned": "cyan", "stopped": "yellow", "diverged": "magenta", "failed": "red"}
MEASURED = ("parameters", "macs_per_pixel", "seconds", "state", "reason", "checkpoint")

Column = tuple[str, Figure, str, Callable[[Result], float | None]]


def _numbers(figures: Sequence[Figure]) -> list[Column]:
    """The columns of figures: title, figure, sign and value; last the headline's lead over its baseline."""
    own: list[Column] = [(f.title, f, "", lambda result, f=f: result.figures.get(f.name)) for f in figures]  # type: ignore[misc]
    held = [f for f in figures[:1] if f.baseline]
    return [*own, *((f"{f.margin} {f.unit}".rstrip(), f, "+", partial(_lead, figure=f)) for f in held)]


def _lead(result: Result, figure: Figure) -> float | None:
    """The lead in this figure: a job of another task leads in another one."""
    return result.lead() if result.headline is not None and result.headline.name == figure.name else None


def job_table(jobs: Mapping[str, Result], title: str = "") -> Table:
    """A row a job, best first: what differs (of one job: what was set by hand), then what it came to."""
    ranked = rank(jobs_apart(jobs))
    results = list(ranked.values())
    numbers = _numbers(declared(results))
    columns = [*results[0].by_hand] if len(results) == 1 else differing([result.settings for result in results])
    return Table(
        title=title,
        headers=["job", *columns, *(title for title, *_ in numbers), "parameters", "seconds", "state"],
        rows=[
            [
                name,
                *(result.settings.get(column, "") for column in columns),
                *(figure.format(value(result), sign) for _, figure, sign, value in numbers),
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
    if len({result.seed for result in jobs.values()}) < 2:
        return None
    results = list(jobs_apart(jobs).values())
    return _spread_table(results, differing([result.settings for result in results], but=["seed"]), title)


def tuned_table(jobs: Mapping[str, Result], title: str = "") -> Table | None:
    """As `seed_table`, each choice at its best learning rate; None where no rates, or no choices beside, were swept."""
    results = list(jobs_apart(jobs).values())
    columns = differing([result.settings for result in results], but=(TUNED, "seed"))
    if not columns or len({result.settings.get(TUNED) for result in results}) < 2:
        return None
    return _spread_table(at_best_rate(results), [*columns, TUNED], title)


def _spread_table(results: Sequence[Result], columns: Sequence[str], title: str) -> Table:
    numbers = _numbers(declared(results))
    groups = [(key, len(group), finished(group)) for key, group in grouped(results, columns).items()]
    return Table(
        title=title,
        headers=[*columns, *(title for title, *_ in numbers), "seeds"],
        rows=[
            [
                *key,
                *(_spread(figure, map(value, done), sign) for _, figure, sign, value in numbers),
                f"{len(done)} of {count}",
            ]
            for key, count, done in sorted(groups, key=lambda group: -mean_worth(group[-1]))
        ],
        left=len(columns),
        least=[title for title, *_ in numbers[1:]],
    )


def _spread(figure: Figure, values: Iterable[float | None], sign: str = "") -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return figure.format(known[0] if known else None, sign)
    return f"{figure.format(statistics.fmean(known), sign)} ± {figure.format(statistics.stdev(known))}"


def print_results(jobs: Mapping[str, Result], file: TextIO | None = None) -> None:
    """Print the ranked table, those over seeds and at best rates where they were swept; then what is to be known of it.

    That is which jobs were judged on different images, and why jobs did not finish.
    """
    done = len(finished(jobs.values()))
    for table in (
        job_table(jobs, f"{done} of {len(jobs)} jobs finished" if len(jobs) > 1 else ""),
        seed_table(jobs, "mean ± sample sd over seeds"),
        tuned_table(jobs, f"at the best {TUNED} of each choice: mean ± sample sd over seeds"),
    ):
        if table is not None:
            table.print(file)
    for sentence in sentences(jobs):
        print(sentence, file=file, flush=True)
    for name, result in jobs.items():
        if result.reason is not None and result.state != "finished":
            print(f"job {name} {result.state}: {result.reason}", file=file, flush=True)


def write_table(path: Path, jobs: Mapping[str, Result]) -> Path:
    """Write the ranked table with unrounded numbers to `path`, whole or not at all."""
    ranked = rank(jobs_apart(jobs))
    figures = declared(ranked.values())
    held = [figure for figure in figures if figure.baseline]
    numbers = _numbers(figures)
    columns = differing([result.settings for result in ranked.values()])
    header = [f.margin if sign else f.name for _, f, sign, _ in numbers] + [f.baseline_name for f in held]
    rows = [
        [
            name,
            *(result.settings.get(column, "") for column in columns),
            *(value(result) for *_, value in numbers),
            *(result.baseline.get(figure.name) for figure in held),
            *(getattr(result, key) for key in MEASURED),
        ]
        for name, result in ranked.items()
    ]
    return write_whole(path, as_csv([["job", *columns, *header, *MEASURED], *rows]))
