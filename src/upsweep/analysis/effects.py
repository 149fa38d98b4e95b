"""What each choice is worth: mean differences of the headline over the settings that were run, as a statistician reads.

Two values of a choice are compared between runs that differ in nothing else, each at its own best learning rate where
rates were swept. Every setting of the other choices counts alike, and the seeds within settings give the error: see
`upsweep.analysis.inference`. What was judged on different images, at another scale or protocol is compared apart.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from upsweep.analysis.inference import (
    LEVEL,
    Cell,
    Difference,
    ErrorTerm,
    Estimate,
    detectable,
    difference,
    error_term,
    holm,
    mean_difference,
    of_choice,
    seeds_needed,
    simultaneous,
)
from upsweep.analysis.ranking import UNDECLARED, at_best_rate, differing, gathered, grouped, headline, tuned
from upsweep.analysis.yardsticks import JUDGED, moves_yardstick
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

MOST_VALUES = 16  # of one choice: more are a continuum, which pairs say nothing about
PICKED = 3.0  # times the variance of a cell whose seeds picked different rates
UNKNOWN = "?"  # a setting that a table does not tell: it is compared with nothing
Pairs = dict[str, list[tuple[str, str]]]
Verdict = Literal["beats", "ahead", "not shown", "same", "no interval"]
# What the article behind this project expects: choice -> (better, worse).
ARTICLE = {
    "init": [("xavier", "torch"), ("he", "torch")],
    "activation": [("relu", "sigmoid"), ("relu", "tanh")],
    "norm": [("bn", "none")],
    "dropout": [("p20", "none"), ("p50", "none")],
}


@dataclass(frozen=True, kw_only=True)
class Opposite:
    """Where `worse` is shown to be the better one: what these settings of the other choices have in common.

    `difference` is by how much `better` leads there, below zero; None where all its runs diverged and the other's not.
    """

    where: Mapping[str, str]
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What `better` is worth against `worse`, two values of the choice `key`.

    Attributes:
        on: what was judged, where a sweep has several: `scale=2`.
        settings: of the other choices, in how many both can be compared; `ahead_in` so many `better` leads.
        seeds: how many different ones these have.
        pairs, planned: of runs, that finished and that there were to be; `missing`: `norm=bn diverged` -> how many.
        difference: by how much `better` leads in the `figure`, the mean over the settings; not negative, whether higher
            or lower values are better. None where nothing can be compared.
        low, high: the interval that holds the truth together with those of all comparisons, in 95 % of pages.
        alone: the interval of this comparison alone, 95 %.
        behind: where the opposite is shown, in single settings, or in all that have one or two values in common: Holm,
            over all of these. `may_be`: where it is the most likely, if that is not sure, and what was seen there.
        doubts: whether the opposite would be shown somewhere without Holm; with one seed, whether a setting is behind.
        p: by Holm, over all comparisons; `p_alone` without.
        detectable: the true difference that would be shown with 80 % power.
        seeds_needed: about how many seeds would show `detect`; None: not known, as of one seed, or more than 1,000.
    """

    key: str
    better: str
    worse: str
    pairs: int
    planned: int
    on: str = ""
    settings: int = 1
    ahead_in: int = 1
    seeds: int = 1
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    alone: tuple[float, float] | None = None
    p: float | None = None
    p_alone: float | None = None
    behind: Sequence[Opposite] = ()
    may_be: Opposite | None = None
    doubts: bool = False
    detectable: float | None = None
    seeds_needed: int | None = None
    missing: Mapping[str, int]
    figure: Figure = UNDECLARED

    @property
    def shown(self) -> bool:
        """Whether the runs show which one is better in the mean over the settings."""
        return self.low is not None and (self.low > 0 or (self.p is not None and self.p <= LEVEL))

    @property
    def verdict(self) -> Verdict:
        """`beats`: shown, and no setting shows the opposite; `ahead`: shown in the mean; `same`: within the noise."""
        if self.difference is None or self.low is None or self.high is None:
            return "no interval"
        if self.shown:
            most = 3 * self.ahead_in > 2 * self.settings
            return "beats" if most and not self.behind and not self.doubts else "ahead"
        within = max(-self.low, self.high) <= self.figure.noise or self.low == self.high == 0
        return "same" if within and not self.behind else "not shown"

    @property
    def expected(self) -> str | None:
        """Which of the two values the article expects to be better; None if it does not say."""
        return next((pair[0] for pair in ARTICLE.get(self.key, ()) if {*pair} == {self.better, self.worse}), None)


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
        term: the error, and `of_choice` that of the comparisons of one.
    """

    on: str
    keys: tuple[str, ...]
    figure: Figure
    runs: Mapping[Cell, Mapping[str, Sequence[Result]]]
    cells: Mapping[Cell, Mapping[str, float]]
    spread: Mapping[Cell, Mapping[str, float]]
    pairs: Pairs
    term: ErrorTerm
    of_choice: Mapping[str, ErrorTerm]

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
    return [key for key in differing([result.settings for result in results]) if key in given]


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
        of_choice={key: of_choice(term, spread, keys.index(key)) for key in pairs},
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
        values = [figure.worth(value) for run in runs if (value := _value(run, figure)) is not None]
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


def _value(run: Result, figure: Figure) -> float | None:
    return run.final(figure.name) if run.state == "finished" else None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that is found in the results of one page; `detect` is the difference for which seeds are counted."""

    studies: Sequence[Study]
    effects: Sequence[Effect]
    detect: float | None = None

    @property
    def comparisons(self) -> int:
        """Over how many Holm's p-values and the intervals hold."""
        return sum(effect.low is not None for effect in self.effects)


def findings(results: Sequence[Result], detect: float | None = None) -> Findings:
    """The studies and effects of results; see `effects`."""
    of = studies(results)
    return Findings(studies=of, effects=compared(of, detect), detect=detect)


def effects(results: Sequence[Result], detect: float | None = None) -> list[Effect]:
    """Every two values of every choice that was swept, choice by choice, the largest difference first.

    Choices with more than 16 values are left out: see them in the plots. `detect` is the difference for which seeds are
    counted; by itself twice what is noise.
    """
    return list(findings(results, detect).effects)


def compared(of: Sequence[Study], detect: float | None = None) -> list[Effect]:
    """As `effects`, of studies that are at hand; Holm and the intervals are over all of them."""
    drafts = [draft for study in of for draft in _drafts(study)]
    known = [estimate for _, estimate, _ in drafts if estimate is not None]
    told, level = (
        iter(zip(holm([one.p for one in known]), simultaneous(known), strict=True)),
        LEVEL / max(len(known), 1),
    )
    return [
        effect if estimate is None else _judged(effect, estimate, *next(told), level, repeats, detect)
        for effect, estimate, repeats in drafts
    ]


def _judged(
    effect: Effect,
    estimate: Estimate,
    p: float,
    interval: tuple[float, float],
    level: float,
    repeats: float,
    detect: float | None,
) -> Effect:
    """An effect, once it is known among how many it is one."""
    size = detect or 2 * effect.figure.noise
    return replace(
        effect,
        low=interval[0],
        high=interval[1],
        alone=estimate.interval(),
        p=p,
        p_alone=estimate.p,
        detectable=detectable(estimate.error, estimate.df, level),
        seeds_needed=seeds_needed(estimate, repeats, size, level) if size and repeats else None,
    )


def _drafts(study: Study) -> list[tuple[Effect, Estimate | None, float]]:
    """The comparisons of a study, their estimates, and how many seeds they have."""
    found = []
    for key, pairs in study.pairs.items():
        drafts = [_draft(study, key, pair) for pair in pairs]
        found += sorted(drafts, key=lambda d: -1.0 if d[0].difference is None else d[0].difference, reverse=True)
    return found


def _draft(study: Study, key: str, pair: tuple[str, str]) -> tuple[Effect, Estimate | None, float]:
    """The cells of both values, matched by the other choices."""
    at, (a, b) = study.keys.index(key), pair
    term = study.of_choice[key]
    matched = _matched(study, at, pair)
    found = {rest: difference(*_figures(study, cells), term) for rest, cells in matched.items()}
    known = {rest: one for rest, one in found.items() if one is not None}
    if math.fsum(one.mean for one in known.values()) < 0:
        a, b, matched = b, a, {rest: cells[::-1] for rest, cells in matched.items()}
        known = {rest: one.turned() for rest, one in known.items()}
    pairs, planned, missing = _counted(study, key, (a, b), matched)
    behind, may_be, doubts = _opposites(study, term, at, known, matched)
    effect = Effect(
        key=key,
        better=a,
        worse=b,
        on=study.on,
        pairs=pairs,
        planned=planned,
        settings=len(known),
        ahead_in=sum(one.mean > 0 for one in known.values()),
        behind=behind,
        may_be=may_be,
        doubts=doubts,
        seeds=len({seed for rest in known for cell in matched[rest] for seed in study.cells[cell]}),
        difference=math.fsum(one.mean for one in known.values()) / len(known) if known else None,
        missing=missing,
        figure=study.figure,
    )
    repeats = 0.0 if term.kind == "interactions" else study.repeats  # which say nothing of what seeds vary by
    return effect, mean_difference(list(known.values()), term) if known else None, repeats


def _matched(study: Study, at: int, pair: tuple[str, str]) -> dict[Cell, tuple[Cell, Cell]]:
    """The other choices' values -> the cells of both values of the choice at this place."""
    rests = dict.fromkeys(cell[:at] + cell[at + 1 :] for cell in study.runs if cell[at] in pair)
    a, b = pair
    return {rest: ((*rest[:at], a, *rest[at:]), (*rest[:at], b, *rest[at:])) for rest in rests}


def _figures(study: Study, cells: tuple[Cell, Cell]) -> tuple[Mapping[str, float], Mapping[str, float]]:
    a, b = cells
    return study.spread.get(a, {}), study.spread.get(b, {})


def _opposites(
    study: Study,
    term: ErrorTerm,
    at: int,
    known: Mapping[Cell, Difference],
    matched: Mapping[Cell, tuple[Cell, Cell]],
) -> tuple[list[Opposite], Opposite | None, bool]:
    """Where the opposite is shown: of all settings with one value in common, with two, and one by one.

    What is part of one that is named already is not named again. Then where it is the most likely otherwise, and
    whether any would be shown if it were alone.
    """
    lost = {rest for rest, cells in matched.items() if rest not in known and _diverged(study, *cells)}
    settings = [rest for rest in matched if rest in known or rest in lost]
    others = study.keys[:at] + study.keys[at + 1 :]
    places: dict[frozenset[tuple[str, str]], list[Cell]] = {}
    for rest in settings:
        for where in _wheres(others, rest):
            places.setdefault(where, []).append(rest)
    ordered = sorted(places.items(), key=lambda place: len(place[0]))
    alone = {where: _against([known[rest] for rest in inside if rest in known], term) for where, inside in ordered}
    adjusted = dict(zip(alone, holm(list(alone.values())), strict=True))
    found: list[Opposite] = []
    seen: list[tuple[float, float, Opposite]] = []
    for where, inside in ordered:
        there = [known[rest].mean for rest in inside if rest in known]
        mean = statistics.fmean(there) if there else None
        one = Opposite(where={key: value for key in others for k, value in where if k == key}, difference=mean)
        if (mean is None or adjusted[where] <= LEVEL / 2) and not any({*old.where.items()} <= where for old in found):
            found.append(one)
        elif mean is not None and mean < 0:
            seen.append((alone[where], mean, one))
    may_be = min(seen, key=lambda each: each[:2], default=(1.0, 0.0, None))[2] if not found else None
    one_by_one = term.kind == "interactions" and any(one.mean < 0 for one in known.values())
    return found, may_be, bool(found) or one_by_one or any(p <= LEVEL / 2 for p in alone.values())


def _wheres(others: Sequence[str], rest: Cell) -> dict[frozenset[tuple[str, str]], None]:
    """What a setting may have in common with others: one word, two, all."""
    words = list(zip(others, rest, strict=True))
    sizes = {size for size in (1, 2, len(others)) if 0 < size <= len(others)}
    return dict.fromkeys(frozenset(some) for size in sizes for some in combinations(words, size))


def _against(settings: Sequence[Difference], term: ErrorTerm) -> float:
    """p of the mean over these settings not being below zero; with one seed nothing is shown by less than all."""
    estimate = mean_difference(settings, term) if settings and term.kind != "interactions" else None
    return 1.0 if estimate is None or estimate.mean >= 0 else estimate.p / 2


def _diverged(study: Study, better: Cell, worse: Cell) -> bool:
    """Whether all runs of the better are lost, one of them diverged, and the other has some that finished."""
    ends = {run.state for runs in study.runs.get(better, {}).values() for run in runs}
    return bool(study.cells.get(worse)) and not study.cells.get(better) and "diverged" in ends


def _counted(
    study: Study, key: str, pair: tuple[str, str], matched: Mapping[Cell, tuple[Cell, Cell]]
) -> tuple[int, int, dict[str, int]]:
    """How many pairs of runs finished, how many there were to be, and why the others are not there."""
    pairs, planned, missing = 0, 0, Counter[str]()
    here = {cell[study.keys.index(key)] for cell in study.runs}
    for cells in matched.values():
        sides = [study.runs.get(cell, {}) for cell in cells]
        if study.term.kind == "pure error":  # runs are not paired by seed
            sides = [{str(i): runs for i, runs in enumerate(side.values())} for side in sides]
        for seed in dict.fromkeys(seed for side in sides for seed in side):
            planned += 1
            ends = [_end(side.get(seed, ()), study.figure) for side in sides]
            pairs += not any(ends)
            for value, why in zip(pair, ends, strict=True):
                elsewhere = why == "was not run" and value not in here
                if why:
                    missing[f"{key}={value} {'was judged on other images' if elsewhere else why}"] += 1
    return pairs, planned, dict(sorted(missing.items()))


def _end(runs: Sequence[Result], figure: Figure) -> str:
    """Why there is no figure; empty where there is one."""
    if not runs:
        return "was not run"
    if any(_value(run, figure) is not None for run in runs):
        return ""
    return f"has no {figure.title}" if runs[0].state == "finished" else runs[0].state
