"""What each choice is worth: PSNR differences, paired over the other choices and the seeds, with their intervals.

Two values of a choice are compared between runs that differ in nothing else, each at its own best learning rate where
rates were swept. The interval is Student's for paired differences: 95 % of such intervals hold the true mean over
choices and seeds like these.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

from scipy.special import stdtrit

from upsweep.sweeps.results import TUNED, Result, at_best_rate, differing

NOISE = 0.05  # dB: what is smaller does not matter in this field, however surely it is there
MOST_VALUES = 16  # of one choice: more are a continuum, which pairs say nothing about
# What is optimised, and what the yardstick is: neither is a choice whose worth could be told in dB.
NOT_CHOICES = {TUNED, "seed", "scale", "protocol", "degradation", "data", "data.root", "data.val_root"}
# What the article behind this project expects: (choice, better, worse).
ARTICLE = {
    ("init", "xavier", "torch"),
    ("init", "he", "torch"),
    ("activation", "relu", "sigmoid"),
    ("activation", "relu", "tanh"),
    ("norm", "bn", "none"),
    ("dropout", "p20", "none"),
    ("dropout", "p50", "none"),
}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What `better` is worth against `worse`, two values of the choice `key`.

    `difference` is the mean over `pairs` pairs of runs in dB, not negative; None without a pair. `low` and `high` are
    the ends of its 95 % interval; None with fewer than two pairs. `planned` pairs would there be if every run had
    finished; `missing` says why they are not: `norm=bn diverged` -> how many runs.
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

    @property
    def shown(self) -> bool:
        """Whether the runs show a difference: the interval is on one side of zero."""
        return self.low is not None and self.low > 0

    @property
    def expected(self) -> bool | None:
        """Whether the article expects `better` to be better; None if it does not say."""
        if (self.key, self.better, self.worse) in ARTICLE:
            return True
        return False if (self.key, self.worse, self.better) in ARTICLE else None


def paired_interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences and the ends of Student's interval for it.

    Raises:
        ValueError: fewer than two differences, from which no deviation can be told.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"{n} difference has no interval")
    mean = statistics.fmean(differences)
    half = float(stdtrit(n - 1, (1 + level) / 2)) * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def swept(results: Sequence[Result]) -> list[str]:
    """What the command lines set differently, as keys; what only follows from it (FSRCNN's activation) is left out."""
    given = {override.partition("=")[0].lstrip("+~") for result in results for override in result.overrides}
    return [key for key in differing([result.settings for result in results]) if key in given]


def effects(results: Sequence[Result]) -> list[Effect]:
    """Every two values of every choice that was swept, choice by choice, the largest difference first.

    Only finished runs count. Choices with more than 16 values are left out: see them in the plots.
    """
    keys = swept(results)
    kept = at_best_rate(results)
    found: list[Effect] = []
    for key in keys:
        values = list(dict.fromkeys(result.settings.get(key, "") for result in kept))
        if key in NOT_CHOICES or not 2 <= len(values) <= MOST_VALUES:
            continue
        others = [other for other in keys if other not in (key, TUNED)]
        compared = [_effect(key, pair, kept, others) for pair in combinations(values, 2)]
        found += sorted(compared, key=lambda e: -math.inf if e.difference is None else e.difference, reverse=True)
    return found


def _effect(key: str, pair: tuple[str, str], results: Sequence[Result], others: Sequence[str]) -> Effect:
    """The runs of both values, matched by the other settings."""
    sides: dict[str, dict[tuple[str, ...], Result]] = {value: {} for value in pair}
    for result in results:
        settings = result.settings
        if (value := settings.get(key, "")) in sides:
            sides[value][tuple(settings.get(other, "") for other in others)] = result
    first, second = pair
    matched = sides[first].keys() | sides[second].keys()
    differences: list[float] = []
    missing: Counter[str] = Counter()
    for place in matched:
        psnr = {}
        for value in pair:
            run = sides[value].get(place)
            if run is not None and run.state == "finished" and run.psnr is not None:
                psnr[value] = run.psnr
            else:
                state = "was not run" if run is None else run.state if run.state != "finished" else "has no PSNR"
                missing[f"{key}={value} {state}"] += 1
        if len(psnr) == 2:
            differences.append(psnr[first] - psnr[second])
    why = dict(sorted(missing.items()))
    known = partial(Effect, key=key, pairs=len(differences), planned=len(matched), missing=why)
    if not differences:
        return known(better=first, worse=second)
    mean = statistics.fmean(differences)
    if mean < 0:
        first, second, differences = second, first, [-difference for difference in differences]
    low, high = paired_interval(differences)[1:] if len(differences) > 1 else (None, None)
    return known(better=first, worse=second, difference=abs(mean), low=low, high=high)


def sentence(effect: Effect) -> str:
    """What a person is told of an effect.

    >>> pairs = {"pairs": 8, "planned": 8, "missing": {}}
    >>> sentence(Effect(key="norm", better="none", worse="bn", difference=0.41, low=0.33, high=0.49, **pairs))
    'norm=none beats norm=bn by 0.41 dB (0.33 to 0.49) on this data; the article expects the opposite.'
    """
    better, worse = f"{effect.key}={effect.better}", f"{effect.key}={effect.worse}"
    if effect.difference is None:
        said = f"{better} and {worse} cannot be compared: no two finished runs differ in {effect.key} alone"
    elif effect.difference == 0 and not effect.low and not effect.high:
        said = f"{better} and {worse} gave the same figures to the last digit: the choice has no effect on these runs"
    elif effect.low is None or effect.high is None:
        said = (
            f"{better} and {worse}: no difference that these runs can show; "
            f"{better} is {effect.difference:.2f} dB ahead in the only pair, which has no interval"
        )
    elif effect.shown:
        said = f"{better} beats {worse} by {effect.difference:.2f} dB {interval(effect)} on this data"
        said += f", less than the {NOISE} dB that matter" if effect.difference < NOISE else ""
    else:
        said = (
            f"{better} and {worse}: no difference that these runs can show; "
            f"{better} is {effect.difference:.2f} dB ahead {interval(effect)}"
        )
    return f"{said}{_expectation(effect)}.{_missing(effect)}"


def interval(effect: Effect) -> str:
    """`(0.33 to 0.49)`, in dB; empty where there is none."""
    return "" if effect.low is None or effect.high is None else f"({effect.low:.2f} to {effect.high:.2f})"


def _expectation(effect: Effect) -> str:
    if effect.expected is None:
        return ""
    if effect.shown:
        return "; the article expects so" if effect.expected else "; the article expects the opposite"
    winner = effect.better if effect.expected else effect.worse
    return f"; the article expects {effect.key}={winner} to win"


def _missing(effect: Effect) -> str:
    gone = effect.planned - effect.pairs
    if not gone or not effect.pairs:
        reasons = ", ".join(f"{what} ({count})" for what, count in effect.missing.items())
        return f" Runs: {reasons}." if gone else ""
    reasons = ", ".join(f"{what} ({count})" for what, count in effect.missing.items())
    return f" {gone} of {effect.planned} pairs are missing: {reasons}."
