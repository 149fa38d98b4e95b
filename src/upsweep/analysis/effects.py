"""What each choice is worth: mean differences of the headline over the settings that were run, as a statistician reads.

Two values of a choice are compared between runs that differ in nothing else, each at its own best learning rate where
rates were swept. Every setting of the other choices counts alike, and the seeds within settings give the error: see
`error_terms` and `inference`. What was judged on different images, at another scale or protocol is compared apart.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from upsweep.analysis.error_terms import LEVEL, Cell
from upsweep.analysis.inference import (
    Estimate,
    detectable,
    difference,
    holm,
    mean_difference,
    seeds_needed,
    simultaneous,
)
from upsweep.analysis.missing import counted
from upsweep.analysis.opposites import Opposite, opposites
from upsweep.analysis.ranking import UNDECLARED
from upsweep.analysis.study import Study, studies
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

Verdict = Literal["beats", "ahead", "not shown", "same", "no interval"]
# What the article 反卷积神经网络的优化技巧 (docs/claims.md) expects: choice -> (better, worse).
ARTICLE = {
    "init": [("xavier", "torch"), ("he", "torch")],
    "activation": [("relu", "sigmoid"), ("relu", "tanh")],
    "norm": [("bn", "none")],
    "dropout": [("p20", "none"), ("p50", "none")],
}


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
    adjusted, level = holm([one.p for one in known]), LEVEL / max(len(known), 1)
    told = iter(zip(adjusted, simultaneous(known, adjusted), strict=True))
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
    size = effect.figure.sought(detect)
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
    term = study.terms[key]
    matched = _matched(study, at, pair)
    found = {rest: difference(*_figures(study, cells), term) for rest, cells in matched.items()}
    known = {rest: one for rest, one in found.items() if one is not None}
    if math.fsum(one.mean for one in known.values()) < 0:
        a, b, matched = b, a, {rest: cells[::-1] for rest, cells in matched.items()}
        known = {rest: one.turned() for rest, one in known.items()}
    pairs, planned, missing = counted(study, key, (a, b), matched)
    behind, may_be, doubts = opposites(study, term, at, known, matched)
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
