"""What each choice is worth: differences of the headline, paired over other choices and seeds, with their intervals.

Two values of a choice are compared between runs that differ in nothing else, each at its own best learning rate where
rates were swept. The interval is Student's for paired differences: 95 % of such intervals hold the true mean over
choices and seeds like these.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scipy.special import stdtrit

from upsweep.analysis.ranking import TUNED, UNDECLARED, at_best_rate, differing, grouped, headline
from upsweep.analysis.yardsticks import JUDGED, moves_yardstick
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

MOST_VALUES = 16  # of one choice: more are a continuum, which pairs say nothing about
NOT_CHOICES = {TUNED, "seed"}  # what is optimised, and chance; nor is what moves the yardstick, see there
# What the article behind this project expects: choice -> (better, worse).
ARTICLE = {
    "init": [("xavier", "torch"), ("he", "torch")],
    "activation": [("relu", "sigmoid"), ("relu", "tanh")],
    "norm": [("bn", "none")],
    "dropout": [("p20", "none"), ("p50", "none")],
}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What `better` is worth against `worse`, two values of the choice `key`.

    `difference` is by how much `better` leads in the headline `figure`, the mean over `pairs` pairs of runs: not
    negative, whether higher or lower values are better; None without a pair. `low` and `high` are the ends of its 95 %
    interval; None with fewer than two pairs. `planned` pairs would there be if every run had finished; `missing` says
    why they are not: `norm=bn diverged` -> how many runs.
    """

    key: str
    better: str
    worse: str
    pairs: int
    planned: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    missing: Mapping[str, int]
    figure: Figure = UNDECLARED

    @property
    def shown(self) -> bool:
        """Whether the runs show a difference: the interval is on one side of zero."""
        return self.low is not None and self.low > 0

    @property
    def expected(self) -> str | None:
        """Which of the two values the article expects to be better; None if it does not say."""
        return next((pair[0] for pair in ARTICLE.get(self.key, ()) if {*pair} == {self.better, self.worse}), None)


def paired_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of Student's interval for it. Raises ValueError: fewer than two."""
    n = len(differences)
    if n < 2:
        raise ValueError(f"{n} difference has no interval")
    mean = statistics.fmean(differences)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def swept(results: Sequence[Result]) -> list[str]:
    """What the command lines set differently, as keys; what only follows from it (FSRCNN's activation) is left out."""
    given = {key for result in results for key in result.by_hand}
    return [key for key in differing([result.settings for result in results]) if key in given]


def effects(results: Sequence[Result]) -> list[Effect]:
    """Every two values of every choice that was swept, choice by choice, the largest difference first.

    Only finished runs count. Choices with more than 16 values are left out: see them in the plots.
    """
    keys, kept = swept(results), at_best_rate(results)
    found: list[Effect] = []
    for key in keys:
        values = list(dict.fromkeys(result.settings.get(key, "") for result in kept))
        if key in NOT_CHOICES or moves_yardstick(key) or not 2 <= len(values) <= MOST_VALUES:
            continue
        others = [other for other in keys if other not in (key, TUNED)]
        compared = [_effect(key, pair, kept, others) for pair in combinations(values, 2)]
        found += sorted(compared, key=lambda e: -math.inf if e.difference is None else e.difference, reverse=True)
    return found


def _effect(key: str, pair: tuple[str, str], results: Sequence[Result], others: Sequence[str]) -> Effect:
    """The runs of both values, matched by the other settings, where both were judged on the same images."""
    figure, leads, missing = headline(results), list[float](), Counter[str]()
    matched = list(_matched([run for run in results if run.settings.get(key, "") in pair], key, others))
    for by_value, elsewhere in matched:
        known = []
        for value in pair:
            run = by_value.get(value)
            if run is not None and run.state == "finished" and figure.name in run.figures:
                known.append(run.figures[figure.name])
            else:
                why = run.state if run else "was judged on other images" if value in elsewhere else "was not run"
                missing[f"{key}={value} {f'has no {figure.title}' if why == 'finished' else why}"] += 1
        if len(known) == 2:
            leads.append(figure.lead(*known))
    better, worse = pair
    if math.fsum(leads) < 0:
        better, worse, leads = worse, better, [-lead for lead in leads]
    mean = statistics.fmean(leads) if leads else None
    low, high = paired_interval(leads)[1:] if len(leads) > 1 else (None, None)
    return Effect(
        key=key,
        better=better,
        worse=worse,
        pairs=len(leads),
        planned=len(matched),
        difference=mean,
        low=low,
        high=high,
        missing=dict(sorted(missing.items())),
        figure=figure,
    )


def _matched(
    results: Sequence[Result], key: str, others: Sequence[str]
) -> Iterator[tuple[dict[str, Result], set[str]]]:
    """The runs that are alike in the other settings, by their value of `key`; and which values there are elsewhere.

    They were judged on the same images. Where no images have both values, those with the first run stand for all.
    """
    for runs in grouped(results, others).values():
        sides = [{run.settings.get(key, ""): run for run in side} for side in grouped(runs, [JUDGED]).values()]
        for side in [side for side in sides if len(side) > 1] or sides[:1]:
            yield side, {value for other in sides for value in other}


def sentence(effect: Effect) -> str:
    """What a person is told of an effect.

    >>> dB = Figure(name="psnr", title="PSNR", unit="dB")
    >>> pairs = {"pairs": 8, "planned": 8, "missing": {}, "figure": dB}
    >>> sentence(Effect(key="norm", better="none", worse="bn", difference=0.41, low=0.33, high=0.49, **pairs))
    'norm=none beats norm=bn by 0.41 dB (0.33 to 0.49) on this data; the article expects the opposite.'
    """
    better, worse = f"{effect.key}={effect.better}", f"{effect.key}={effect.worse}"
    figure, ahead = effect.figure, effect.figure.text(effect.difference)
    unclear = f"{better} and {worse}: no difference that these runs can show; {better} is {ahead} ahead"
    if effect.difference is None:
        said = f"{better} and {worse} cannot be compared: no two finished runs differ in {effect.key} alone"
    elif effect.difference == 0 and not effect.low and not effect.high:
        said = f"{better} and {worse} gave the same figures to the last digit: the choice has no effect on these runs"
    elif effect.low is None:
        said = f"{unclear} in the only pair, which has no interval"
    elif effect.shown:
        said = f"{better} beats {worse} by {ahead} {interval(effect)} on this data"
        noise = f"{figure.noise:g} {figure.unit}".rstrip()
        said += f", less than the {noise} that matter" if effect.difference < figure.noise else ""
    else:
        said = f"{unclear} {interval(effect)}"
    return f"{said}{_expectation(effect)}.{_missing(effect)}"


def interval(effect: Effect) -> str:
    """`(0.33 to 0.49)`, in the figure's unit; empty where there is none."""
    known = effect.low is not None
    return f"({effect.figure.format(effect.low)} to {effect.figure.format(effect.high)})" if known else ""


def _expectation(effect: Effect) -> str:
    if effect.expected is None:
        return ""
    if not effect.shown:
        return f"; the article expects {effect.key}={effect.expected} to win"
    return f"; the article expects {'so' if effect.expected == effect.better else 'the opposite'}"


def _missing(effect: Effect) -> str:
    gone = effect.planned - effect.pairs
    if not gone:
        return ""
    reasons = ", ".join(f"{what} ({count})" for what, count in effect.missing.items())
    return f" {gone} of {effect.planned} pairs are missing: {reasons}." if effect.pairs else f" Runs: {reasons}."
