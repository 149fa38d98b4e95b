"""What the page's plots are drawn from, as plain values: runs, their means over seeds, and the Pareto fronts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from upsweep.reporting.effects import MOST_VALUES, swept
from upsweep.reporting.runs import Run
from upsweep.sweeps.results import Result, finished, grouped

COSTS = ("parameters", "seconds")


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of the points (cost, worth) no other beats: none costs less or the same and is worth more.

    In the order of rising cost; of equal points the first.
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def number(text: str) -> float | None:
    """The finite number that a value of the command line is, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def axes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """What was swept but the seed: `name`, `values` in order, `numeric` where they are a continuum of numbers."""
    found = []
    for key in swept(results):
        if key == "seed":
            continue
        values = list(dict.fromkeys(result.settings.get(key, "") for result in results))
        numbers = [number(value) for value in values]
        if all(one is not None for one in numbers):
            values.sort(key=float)
        found.append({"name": key, "values": values, "numeric": len(values) > MOST_VALUES and None not in numbers})
    return found


def cells(results: Sequence[Result], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The means over the seeds that finished, best first: a point each, its Pareto membership in `fronts`."""
    groups = grouped(results, but=(), columns=keys)[1] if keys else {(): list(results)}
    made: list[dict[str, Any]] = []
    for values, group in groups.items():
        runs = [result for result in finished(group) if result.psnr is not None]
        psnrs = [result.psnr for result in runs if result.psnr is not None]
        if not runs:
            continue
        gains = [result.gain for result in runs if result.gain is not None]
        made.append(
            {
                "settings": dict(zip(keys, values, strict=True)),
                "label": " ".join(f"{key}={value}" for key, value in zip(keys, values, strict=True)),
                "psnr": statistics.fmean(psnrs),
                "sd": statistics.stdev(psnrs) if len(psnrs) > 1 else None,
                "gain": statistics.fmean(gains) if gains else None,
                "seeds": len(runs),
                "of": len(group),
                **{cost: _mean([getattr(result, cost) for result in runs]) for cost in COSTS},
                "fronts": [],
            }
        )
    made.sort(key=lambda cell: -cell["psnr"])
    for cost in COSTS:
        priced = [cell for cell in made if cell[cost] is not None]
        for i in pareto([(cell[cost], cell["psnr"]) for cell in priced]):
            priced[i]["fronts"].append(cost)
    return made


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def payload(runs: Sequence[Run], colour: str | None) -> dict[str, Any]:
    """Everything that the page's script draws; `colour` is the choice that is told apart by colour at first."""
    results = [run.result for run in runs]
    found = axes(results)
    keys = [axis["name"] for axis in found]
    named = [axis["name"] for axis in found if not axis["numeric"]]
    bicubic = {round(result.psnr_bicubic, 6) for result in results if result.psnr_bicubic is not None}
    return {
        "axes": found,
        "colour": colour if colour in named else named[0] if named else None,
        "bicubic": bicubic.pop() if len(bicubic) == 1 else None,
        "runs": [
            {
                "name": run.name,
                "settings": {key: run.result.settings.get(key, "") for key in keys},
                "seed": run.result.seed,
                "state": run.result.state,
                "psnr": run.result.psnr,
                "history": _columns(run.history),
            }
            for run in runs
        ],
        "cells": cells(results, keys),
    }


def _columns(history: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    return {name: list(column) for name, column in history.items()}
