"""Whether the report's intervals hold what they promise: simulated sweeps whose truth is known.

python benchmarks/effect_intervals.py            # 2,000 sweeps of every shape, about ten minutes; effect_intervals.json
python benchmarks/effect_intervals.py 200        # fewer, nothing is written

A sweep is a grid of choices and seeds. A run's figure is the sum of what its choices are worth, what every pair of them
is worth beside (interactions), what its seed shares, and noise. Counted are, over sweeps: how often an interval holds
the true mean difference over the settings that were run (`each`), how often all of a page's do (`together`), and how
often a page says of at least one pair that one beats, or is ahead of, the other where that is not so (`false`).
`before` is what upsweep 0.1 did: Student's interval over all pairs of runs, each taken for independent, one by one.
"""

import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations, product
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from upsweep.analysis.effects import Effect, effects
from upsweep.analysis.ranking import at_best_rate
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

SWEEPS = 2000
DB = Figure(name="psnr", title="PSNR", unit="dB", noise=0.05)
Cell = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sweeps of one kind; all sizes are standard deviations, in units of a run's noise.

    `main` and `pairs` are those of what a value, and a pair of values, is worth. `block` is shared by all runs of a
    seed; `along` by those of a seed that have one value in common. `spread` is that of the logarithm of a cell's noise.
    A share `lost` of the runs diverges, and all runs of the cells in `dead`. `rates`: by how much each of several
    learning rates is worse than the best one; each seed's is picked on the other seeds. `apart`: the last value of the
    first choice was run with seeds of its own, as in a table of another day.
    """

    values: tuple[int, ...]
    seeds: int
    main: float = 0.0
    pairs: float = 0.0
    block: float = 0.0
    along: float = 0.0
    spread: float = 0.0
    lost: float = 0.0
    dead: tuple[Cell, ...] = ()
    rates: tuple[float, ...] = (0.0,)
    apart: bool = False


ARTICLE = (3, 3, 2, 2)
SHAPES = {
    "the article's": Shape(values=ARTICLE, seeds=3, main=1, pairs=1),
    "the article's, without effects": Shape(values=ARTICLE, seeds=3),
    "unbalanced, diverged runs": Shape(
        values=ARTICLE, seeds=3, main=1, pairs=1, lost=0.15, dead=(("0", "0", "0", "0"), ("2", "1", "1", "0"))
    ),
    "unbalanced, without effects": Shape(values=ARTICLE, seeds=3, lost=0.15, dead=(("0", "0", "0", "0"),)),
    "twelve equal values": Shape(values=(12,), seeds=3),
    "one seed, interactions": Shape(values=ARTICLE, seeds=1, main=1, pairs=1),
    "one seed, without effects": Shape(values=ARTICLE, seeds=1),
    "a seed's runs correlated": Shape(values=ARTICLE, seeds=3, block=1),
    "a seed moves choices": Shape(values=ARTICLE, seeds=3, block=1, along=0.5),
    "cells of unlike noise": Shape(values=ARTICLE, seeds=3, spread=0.7),
    "three rates, no better": Shape(values=(3, 2, 2), seeds=3, rates=(0, 0, 0)),
    "three rates": Shape(values=(2, 2, 2), seeds=5, main=1, pairs=1, rates=(0, 0.5, 1)),
    "a value with seeds of its own": Shape(values=(2, 4), seeds=3, block=2, apart=True),
    "two by two": Shape(values=(2, 2), seeds=2, block=1),
    "ten seeds": Shape(values=(3, 2), seeds=10, main=1, pairs=1),
}


@dataclass
class Outcome:
    """Shares of sweeps (`each`, `before`: of intervals), and the mean width of an interval alone, in units of noise."""

    each: float = 0.0
    together: float = 0.0
    false: float = 0.0
    width: float = 0.0
    before: float = 0.0
    false_before: float = 0.0
    verdicts: dict[str, float] = field(default_factory=dict)


def sweep(shape: Shape, rng: np.random.Generator) -> tuple[list[Result], dict[Cell, float]]:
    """The results of one sweep, and the true figure of every cell."""
    true = np.zeros(shape.values)
    places = range(len(shape.values))
    for at in places:
        true += _along(rng.normal(0, shape.main, shape.values[at]), shape.values, at)
    for a, b in combinations(places, 2):
        true += _along(rng.normal(0, shape.pairs, (shape.values[a], shape.values[b])), shape.values, a, b)
    seeds = shape.seeds * (1 + shape.apart)
    shared = rng.normal(0, shape.block, seeds)
    moved = [rng.normal(0, shape.along, (count, seeds)) for count in shape.values]
    results, truth = [], {}
    for place in product(*map(range, shape.values)):
        cell = tuple(map(str, place))
        truth[cell] = float(true[place])
        noise = math.exp(rng.normal(0, shape.spread))
        first = shape.seeds if shape.apart and place[0] == shape.values[0] - 1 else 0
        for seed in range(first, first + shape.seeds):
            level = true[place] + shared[seed] + sum(moved[at][place[at], seed] for at in places)
            for rate, worse in enumerate(shape.rates):
                value = float(level - worse + noise * rng.normal())
                lost = rng.random() < shape.lost or cell in shape.dead
                results.append(_result(cell, seed, rate, None if lost else value))
    return results, truth


def _along(values: np.ndarray, shape: tuple[int, ...], *places: int) -> np.ndarray:
    sides = [size if at in places else 1 for at, size in enumerate(shape)]
    return np.broadcast_to(values.reshape(sides), shape)


def _result(cell: Cell, seed: int, rate: int, value: float | None) -> Result:
    figures = {} if value is None else {DB.name: value}
    return Result(
        state="diverged" if value is None else "finished",
        choices={},
        overrides=[*(f"c{at}={value}" for at, value in enumerate(cell)), f"optimizer.lr={rate}", f"seed={seed}"],
        seed=seed,
        scale=None,
        declared=(DB,),
        figures=figures,
        last=figures,
    )


def simulate(shape: Shape, sweeps: int, seed: int = 0) -> Outcome:
    """What becomes of so many sweeps of a shape."""
    rng, outcome, counted, told = np.random.default_rng(seed), Outcome(), 0, 0
    for _ in range(sweeps):
        results, truth = sweep(shape, rng)
        found = [effect for effect in effects(results) if effect.low is not None]
        finished = {(*_cell(run), str(run.seed)): run.value for run in at_best_rate(results) if run.value is not None}
        hits, wrong, wrong_before = [], False, False
        for effect in found:
            assert effect.low is not None and effect.high is not None and effect.alone is not None
            true, leads = _truth(effect, truth, finished)
            hits.append(effect.low <= true <= effect.high)
            outcome.each += effect.alone[0] <= true <= effect.alone[1]
            outcome.width += effect.alone[1] - effect.alone[0]
            low, high = student(leads)
            outcome.before += low <= true <= high
            wrong_before |= low > 0 and not true > 1e-9
            wrong |= effect.verdict in ("beats", "ahead") and not true > 1e-9
            outcome.verdicts[effect.verdict] = outcome.verdicts.get(effect.verdict, 0) + 1
            counted += 1
        if found:
            told += 1
            outcome.together += all(hits)
            outcome.false += wrong
            outcome.false_before += wrong_before
    for name in ("each", "width", "before"):
        setattr(outcome, name, round(getattr(outcome, name) / counted, 4))
    for name in ("together", "false", "false_before"):
        setattr(outcome, name, round(getattr(outcome, name) / told, 4))
    outcome.verdicts = {verdict: round(count / counted, 4) for verdict, count in sorted(outcome.verdicts.items())}
    return outcome


def _cell(run: Result) -> Cell:
    return tuple(value for key, value in run.settings.items() if key.startswith("c"))


def _truth(effect: Effect, truth: Mapping[Cell, float], finished: Mapping[Cell, float]) -> tuple[float, list[float]]:
    """The true mean difference over the settings that both were run in; and the differences of all pairs of runs."""
    at, true, leads = int(effect.key[1:]), list[float](), list[float]()
    there = {key[:-1] for key in finished}
    for cell in truth:
        if cell[at] != effect.better:
            continue
        other = (*cell[:at], effect.worse, *cell[at + 1 :])
        if {cell, other} <= there:
            true.append(truth[cell] - truth[other])
            leads += _pairs(cell, other, finished)
    return statistics.fmean(true), leads


def _pairs(a: Cell, b: Cell, finished: Mapping[Cell, float]) -> Iterator[float]:
    for (*cell, seed), value in finished.items():
        if tuple(cell) == a and (*b, seed) in finished:
            yield value - finished[*b, seed]


def student(leads: Sequence[float]) -> tuple[float, float]:
    """What upsweep 0.1 said: every pair of runs counts as independent."""
    if len(leads) < 2:
        return -math.inf, math.inf
    mean = statistics.fmean(leads)
    half = float(stdtrit(len(leads) - 1, 0.975)) * statistics.stdev(leads) / math.sqrt(len(leads))
    return mean - half, mean + half


def main(sweeps: int = SWEEPS) -> None:
    """Simulate every shape, print what came out, and write it where all sweeps were simulated."""
    said, lines = {}, [HEADER]
    print(HEADER)
    for name, shape in SHAPES.items():
        one = simulate(shape, sweeps)
        said[name] = {"shape": asdict(shape), "outcome": asdict(one)}
        figures = (one.each, one.together, one.false, one.before, one.false_before)
        lines.append(f"| {name} | " + " | ".join(f"{figure:.1%}" for figure in figures) + " |")
        print(lines[-1], flush=True)
    if sweeps >= SWEEPS:
        file = Path(__file__)
        file.with_suffix(".json").write_text(json.dumps({"sweeps": sweeps, "shapes": said}, indent=1) + "\n")
        file.with_suffix(".md").write_text(WORDS.format(sweeps=sweeps, table="\n".join(lines)))


HEADER = """\
| sweeps | each interval | all of a page | false verdict | each, before | false, before |
| --- | ---: | ---: | ---: | ---: | ---: |"""
WORDS = """\
# Whether the report's intervals hold what they promise

Made by `python benchmarks/effect_intervals.py`: {sweeps:,} simulated sweeps of each kind, with a known truth.
*Each interval* says how often the 95 % interval of one comparison contains the true mean difference over the settings
that were run. *All of a page* says how often all simultaneous intervals of a page do. A page has a *false verdict* if
it says that one value beats, or is ahead of, another, and this is wrong. *Before* is the method that upsweep used until
November 2026: Student's interval over all pairs of runs, as if they were independent.

{table}

With one seed and interactions, the error is estimated from the interactions, and the intervals are too wide. This is
the price of one seed. If a seed shifts choices equally in all settings, a test finds this in most sweeps but not in
all. `effect_intervals.json` describes the kinds of sweeps.
"""

if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
