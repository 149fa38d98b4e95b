"""What plots are drawn from, as plain values: axes, runs, their means over seeds, and the Pareto fronts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from upsweep.analysis.effects import Effect
from upsweep.analysis.ranking import declared, finished, grouped, headline
from upsweep.analysis.study import MOST_VALUES, swept
from upsweep.analysis.tables import of_seeds, seeds_of
from upsweep.analysis.variance import Interaction
from upsweep.analysis.yardsticks import JUDGED
from upsweep.metrics.figure import Figure
from upsweep.reporting.sweep import Run
from upsweep.runs.history import OTHER
from upsweep.runs.result import Result

COSTS = ("parameters", "seconds")
LETTER, LINE = 7.4, 16  # pixels: about the width of a letter, and the height of a line
LONGEST = 14  # letters of a name in a picture
NOTHING: Mapping[str, Any] = MappingProxyType({})


def span(effects: Sequence[Effect]) -> tuple[float, float]:
    """The least and the largest value of a common axis, round numbers; zero is always on it."""
    values = (value for effect in effects for value in (effect.difference, effect.low, effect.high))
    ends = [0.0, *(value for value in values if value is not None)]
    step = _step(max(ends) - min(ends))
    return math.floor(min(ends) / step + 1e-9) * step, max(step, math.ceil(max(ends) / step - 1e-9) * step)


def ticks(low: float, high: float) -> list[float]:
    """Round values from `low` to `high`, few enough to be read."""
    step = _step(high - low)
    return [round(i * step, 10) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _step(width: float) -> float:
    if width <= 0:
        return 0.1
    power = 10.0 ** math.floor(math.log10(width / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if width / (power * factor) <= 4 + 1e-9)


def lines(interaction: Interaction) -> dict[str, Any]:
    """The picture of an interaction, in pixels: a line a row over the columns, its name where the line ends.

    `points` are (x, y) or None where no run finished; `names` the places of the rows' names, kept apart.
    """
    known = [value for row in interaction.means for value in row if value is not None]
    low, high = min(known), max(known)
    left, top, height = 56, LINE, max(170, LINE * len(interaction.rows))
    pitch = max(64.0, LETTER * min(LONGEST, max(map(len, interaction.columns))) + 12)
    xs = [left + pitch * (i + 0.5) for i in range(len(interaction.columns))]

    def y(value: float) -> float:
        return top + height * (1 - ((value - low) / (high - low) if high > low else 0.5))

    points = [
        [None if value is None else (x, y(value)) for x, value in zip(xs, row, strict=True)]
        for row in interaction.means
    ]
    ends = [next((point for point in reversed(row) if point is not None), None) for row in points]
    there = [end for end in ends if end is not None]
    names = iter(kept_apart([end[1] for end in there], LINE, top + height))
    right = left + pitch * len(xs)
    return {
        "columns": list(zip(xs, interaction.columns, strict=True)),
        "rows": [
            {"name": name, "points": row, "end": end, "label": None if end is None else next(names)}
            for name, row, end in zip(interaction.rows, points, ends, strict=True)
        ],
        "ticks": [(value, y(value)) for value in (ticks(low, high) if high > low else [low])],
        "left": left,
        "right": right,
        "bottom": top + height,
        "width": round(right + LETTER * min(LONGEST, max(map(len, interaction.rows)))),
        "height": top + height + 3 * LINE,
    }


def kept_apart(places: Sequence[float], least: float, bottom: float) -> list[float]:
    """The places in their order, moved so that none is nearer than `least` to the next, nor below `bottom`."""
    found, order = list(places), sorted(range(len(places)), key=places.__getitem__)
    for before, i in pairwise(order):
        found[i] = max(found[i], found[before] + least)
    for i in reversed(order):
        found[i] = min(found[i], bottom)
        bottom = found[i] - least
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (cost, worth) no other beats, by rising cost: none costs no more and is worth more.

    Of equal points it is the first.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def axes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What was swept but the seed: `name`, `values` in order, `numeric` where they are a continuum of numbers."""
    found = []
    for key in (key for key in swept(results) if key != "seed"):
        values = list(dict.fromkeys(result.settings.get(key, "") for result in results))
        numeric = all(map(_is_number, values))
        if numeric:
            values.sort(key=float)
        found.append({"name": key, "values": values, "numeric": numeric and len(values) > MOST_VALUES})
    return found


def _is_number(text: str) -> bool:
    """Whether a value of the command line is a finite number."""
    with suppress(ValueError):
        return math.isfinite(float(text))
    return False


def cells(results: Sequence[Result], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The means over the seeds that finished, best first: a point each, its Pareto membership in `fronts`."""
    figure = headline(results)
    made: list[dict[str, Any]] = []
    for values, group in grouped(results, keys).items():
        runs = [result for result in finished(group) if result.final(figure.name) is not None]
        if not runs:
            continue
        reached = of_seeds(runs, lambda run: run.final(figure.name))
        made.append(
            {
                "settings": dict(zip(keys, values, strict=True)),
                "label": " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True)),
                "value": statistics.fmean(reached),
                "sd": statistics.stdev(reached) if len(reached) > 1 else None,
                "lead": _mean([result.lead() for result in runs]),
                "seeds": seeds_of(runs),
                "of": seeds_of(group),
                **{cost: _mean([getattr(result, cost) for result in runs]) for cost in COSTS},
                "fronts": [],
            }
        )
    made.sort(key=lambda cell: -figure.worth(cell["value"]))
    for cost in COSTS:
        priced = [cell for cell in made if cell[cost] is not None]
        for i in pareto([(cell[cost], figure.worth(cell["value"])) for cell in priced]):
            priced[i]["fronts"].append(cost)
    return made


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def curves(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What is drawn over the steps, of what any history has: every figure, then the loss of every player.

    `column` names it in a history. A loss has no figure. `baseline` is None where not all runs have the same. `log`:
    losses of two players go up and down, that of one falls by powers of ten.
    """
    results = [run.result for run in runs]
    there = {name for run in runs for name, values in run.history.items() if any(y is not None for y in values)}
    others = sorted(name for name in there if name.startswith(OTHER))
    losses = {"loss": f"Training loss{' of the generator' if others else ''}"}
    losses |= {name: f"Training loss of the {name.removeprefix(OTHER)}" for name in others}
    return [
        *(
            {
                "column": f.name,
                "title": f"Validation {f.label}{'; lower is better' if f.better == 'lower' else ''}",
                "figure": asdict(f),
                "baseline": _baseline(results, f),
                "log": False,
            }
            for f in declared(results)
            if f.name in there
        ),
        *(
            {"column": column, "title": title, "figure": None, "baseline": None, "log": not others}
            for column, title in losses.items()
            if column in there
        ),
    ]


def _baseline(results: Sequence[Result], figure: Figure) -> float | None:
    """The baseline's value of a figure, where all results have the same."""
    found = {round(result.baseline[figure.name], 6) for result in results if figure.name in result.baseline}
    return found.pop() if len(found) == 1 else None


def payload(
    runs: Sequence[Run],
    colour: str | None,
    spectra: Mapping[str, Mapping[str, Sequence[float]]] = NOTHING,
    scale: int | None = None,
) -> dict[str, Any]:
    """Everything that the page's script draws; `colour` is the choice that is told apart by colour at first.

    `spectra` are those of section Why by the names of the runs, `scale` what these have in common.
    """
    results = [run.result for run in runs]
    found, drawn = axes(results), curves(runs)
    keys = [axis["name"] for axis in found]
    apart = [JUDGED] if any(JUDGED in result.choices for result in results) else []
    named = [axis["name"] for axis in found if not axis["numeric"]]
    columns = ("step", "seconds", *(one["column"] for one in drawn))
    return {
        "axes": found,
        "colour": colour if colour in named else named[0] if named else None,
        "figure": asdict(headline(results)),
        "curves": drawn,
        "runs": [
            {
                "name": run.name,
                "settings": {key: run.result.settings.get(key, "") for key in keys},
                "seed": run.result.seed,
                "state": run.result.state,
                **({"judged": run.result.choices[JUDGED]} if JUDGED in run.result.choices else {}),
                "value": run.result.value,
                "history": {name: run.history[name] for name in columns if name in run.history},
                **({"spectrum": spectra[run.name]} if run.name in spectra else {}),
            }
            for run in runs
        ],
        "cells": cells(results, [*keys, *apart]),
        **({"scale": scale} if spectra else {}),
    }
