"""Which pairs of runs are not there, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence

from upsweep.analysis.error_terms import Cell
from upsweep.analysis.study import Study, value_of
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result


def counted(
    study: Study, key: str, pair: tuple[str, str], matched: Mapping[Cell, tuple[Cell, Cell]]
) -> tuple[int, int, dict[str, int]]:
    """How many pairs of runs finished, how many there were to be, and why the others are not there."""
    pairs, planned, missing = 0, 0, Counter[str]()
    here = {cell[study.keys.index(key)] for cell in study.runs}
    for cells in matched.values():
        sides = [study.runs.get(cell, {}) for cell in cells]
        apart = all(sides) and not sides[0].keys() & sides[1].keys()
        if study.term.kind == "pure error" or apart:  # runs are not paired by seed
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
    if any(value_of(run, figure) is not None for run in runs):
        return ""
    return f"has no {figure.title}" if runs[0].state == "finished" else runs[0].state
