"""Where the worse of two values is the better one: a mean over settings may hide it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from upsweep.analysis.error_terms import LEVEL, Cell, ErrorTerm
from upsweep.analysis.inference import Difference, holm, mean_difference
from upsweep.analysis.study import Study


@dataclass(frozen=True, kw_only=True)
class Opposite:
    """Where `worse` is shown to be the better one: what these settings of the other choices have in common.

    `difference` is by how much `better` leads there, below zero; None where all its runs diverged and the other's not.
    """

    where: Mapping[str, str]
    difference: float | None


def opposites(
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
