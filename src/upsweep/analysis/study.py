"""The runs that are compared: what was judged alike, by combinations of choices, each at its best learning rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from upsweep.analysis.error_terms import Cell, ErrorTerm, error_term, of_choice
from upsweep.analysis.ranking import at_best_rate, gathered, grouped, headline, telling, tuned
from upsweep.analysis.yardsticks import JUDGED, moves_yardstick
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

MOST_VALUES = 16  # of one choice: more are a continuum, which pairs say nothing about
PICKED = 3.0  # times the variance of a cell whose seeds picked different rates
UNKNOWN = "?"  # a setting that a table does not tell: it is compared with nothing
Pairs = dict[str, list[tuple[str, str]]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """All that is compared on one yardstick.

    Attributes:
        on: which that is, where a sweep has several: `scale=2`.
        keys: what was swept, in the order of a cell's values.
        runs: each choice at its best rate: cell -> seed -> the runs.
        cells: the same as figures, higher for better, of the runs that finished.
        spread: the same, spread about each cell's mean by what picking rates costs: from these the error is taken.
        pairs: choice -> the pairs of its values that are told of here.
        term: the error, and `terms` that of the comparisons of each choice.
    """

    on: str
    keys: tuple[str, ...]
    figure: Figure
    runs: Mapping[Cell, Mapping[str, Sequence[Result]]]
    cells: Mapping[Cell, Mapping[str, float]]
    spread: Mapping[Cell, Mapping[str, float]]
    pairs: Pairs
    term: ErrorTerm
    terms: Mapping[str, ErrorTerm]

    @property
    def results(self) -> list[Result]:
        """All of its runs."""
        return [run for by_seed in self.runs.values() for runs in by_seed.values() for run in runs]

    @property
    def repeats(self) -> float:
        """Runs a cell, on average over those that finished."""
        counts = [len(runs) for runs in self.cells.values() if runs]
        return sum(counts) / len(counts) if counts else 0.0


def swept(results: Sequence[Result]) -> list[str]:
    """What the command lines set differently, as keys; what only follows from it (FSRCNN's activation) is left out."""
    given = {key for result in results for key in result.by_hand}
    return [key for key in telling(results) if key in given]


def studies(results: Sequence[Result]) -> list[Study]:
    """The finished runs by what they were judged on, each choice at its best rate."""
    kept, settings = at_best_rate(results), [key for key in swept(results) if key not in ("seed", *tuned(results))]
    yardsticks = [key for key in settings if moves_yardstick(key)]
    keys = tuple(key for key in settings if key not in yardsticks)
    made: list[Study] = []
    for on, alike in grouped(kept, yardsticks).items():
        said = [f"{key}={value}" for key, value in zip(yardsticks, on, strict=True)]
        by_images = gathered(alike, lambda run: (run.settings.get(JUDGED, ""), run.headline and run.headline.name))
        pairs = _shared_out(keys, list(by_images.values()))
        made += [
            _study(" ".join([*said, images] if images else said), keys, runs, one)
            for ((images, _), runs), one in zip(by_images.items(), pairs, strict=True)
        ]
    return made


def _study(on: str, keys: tuple[str, ...], results: Sequence[Result], pairs: Pairs) -> Study:
    figure, by_cell = headline(results), grouped(results, keys)
    runs = {cell: gathered(of_cell, lambda run: str(run.seed)) for cell, of_cell in by_cell.items()}
    cells = {cell: _reached(by_seed, figure) for cell, by_seed in runs.items()}
    spread = {cell: _spread(runs[cell], figures) for cell, figures in cells.items()}
    term = error_term(spread)
    return Study(
        on=on,
        keys=keys,
        figure=figure,
        runs=runs,
        cells=cells,
        spread=spread,
        pairs=pairs,
        term=term,
        terms={key: of_choice(term, spread, keys.index(key)) for key in pairs},
    )


def _shared_out(keys: Sequence[str], sides: Sequence[Sequence[Result]]) -> list[Pairs]:
    """The pairs of each choice that are compared on each of the images: where both values are.

    Where no images have both, those with the first run tell of it.
    """
    shared: list[Pairs] = [{} for _ in sides]
    for key in keys:
        there = [dict.fromkeys(run.settings.get(key, "") for run in side) for side in sides]
        values = list(dict.fromkeys(value for side in there for value in side if value != UNKNOWN))
        for pair in combinations(values, 2) if len(values) <= MOST_VALUES else ():
            both = [i for i, side in enumerate(there) if side.keys() >= {*pair}]
            for i in both or [next(i for i, side in enumerate(there) if side.keys() & {*pair})]:
                shared[i].setdefault(key, []).append(pair)
    return shared


def _reached(by_seed: Mapping[str, Sequence[Result]], figure: Figure) -> dict[str, float]:
    """Runs of the same choices and seed (a sweep that was run twice) count as one: their mean."""
    found = {}
    for seed, runs in by_seed.items():
        values = [figure.worth(value) for run in runs if (value := value_of(run, figure)) is not None]
        if values:
            found[seed] = math.fsum(values) / len(values)
    return found


def _spread(by_seed: Mapping[str, Sequence[Result]], figures: Mapping[str, float]) -> dict[str, float]:
    """The figures, further from their mean where seeds picked different rates.

    Such picks share runs: the rate of each is picked on the others. The variance of the mean is then about three times
    what the figures' own says, whatever the rates are worth (simulated: benchmarks/effect_intervals.py).
    """
    keys = next((run.tuned for runs in by_seed.values() for run in runs), [])
    rates = {tuple(run.settings.get(key) for key in keys) for seed in figures for run in by_seed[seed]}
    if len(rates) < 2:
        return dict(figures)
    mean = math.fsum(figures.values()) / len(figures)
    return {seed: mean + math.sqrt(PICKED) * (value - mean) for seed, value in figures.items()}


def value_of(run: Result, figure: Figure) -> float | None:
    """The figure of a run that finished."""
    return run.final(figure.name) if run.state == "finished" else None
