"""How sure a mean difference is: Student's intervals, Holm, and the power of a design; see `error_terms` for the error.

Plain numbers in, plain numbers out.
"""

import math
import statistics
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import fdtrc, nctdtrinc, stdtr, stdtrit

from upsweep.analysis.error_terms import ALIKE, LEVEL, ErrorTerm, Runs

POWER = 0.8
ENOUGH = 10  # degrees of freedom, with which a comparison needs no other runs than its own
MOST_SEEDS = 1000  # more are not looked for


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean, its standard error, and the degrees of freedom of that."""

    mean: float
    error: float
    df: float

    @property
    def p(self) -> float:
        """Two-sided, of the mean being zero."""
        if self.error <= 0:
            return float(self.mean == 0)
        return 2 * float(stdtr(self.df, -abs(self.mean) / self.error))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The ends of Student's interval, which misses the truth in a share `level` of cases."""
        half = quantile(self.df, level) * self.error
        return self.mean - half, self.mean + half


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Of two cells that differ in one choice.

    Attributes:
        mean: of the difference.
        own: the parts of its variance, from these cells' runs alone, each with its degrees of freedom; none where these
            do not tell what seeds share from what they do not.
        pooled: its variance, from the runs of all cells.
        runs: how many pairs it is the mean of.
        by_seed: what each seed adds to the mean's distance from the truth, as these runs show it.
        weights: of each seed in the mean of either side.
    """

    mean: float
    own: Sequence[tuple[float, float]]
    pooled: float
    runs: int
    by_seed: Mapping[str, float]
    weights: tuple[Mapping[str, float], Mapping[str, float]]

    def turned(self) -> "Difference":
        """The other way round."""
        return replace(self, mean=-self.mean, by_seed={seed: -share for seed, share in self.by_seed.items()})


def difference(a: Runs, b: Runs, term: ErrorTerm) -> Difference | None:
    """Of two cells; None where they share nothing to be compared by."""
    both = {seed: a[seed] - b[seed] for seed in a if seed in b}
    if term.kind == "pure error" or not both:
        if not a or not b:
            return None
        parts = [(_variance(list(runs.values())) / len(runs), len(runs) - 1) for runs in (a, b)]
        own = parts if term.kind == "pure error" else []
        weights = dict.fromkeys(a, 1 / len(a)), dict.fromkeys(b, 1 / len(b))
        mean = statistics.fmean(a.values()) - statistics.fmean(b.values())
        pooled = term.variance * (1 / len(a) + 1 / len(b))
        return Difference(mean=mean, own=own, pooled=pooled, runs=min(len(a), len(b)), by_seed={}, weights=weights)
    n, mean = len(both), statistics.fmean(both.values())
    return Difference(
        mean=mean,
        own=[(_variance(list(both.values())) / n, n - 1)],
        pooled=2 * term.variance / n,
        runs=n,
        by_seed={seed: (value - mean) / n for seed, value in both.items()},
        weights=(dict.fromkeys(both, 1 / n),) * 2,
    )


def _variance(values: Sequence[float]) -> float:
    return statistics.variance(values) if len(values) > 1 else 0.0


def mean_difference(settings: Sequence[Difference], term: ErrorTerm) -> Estimate | None:
    """The mean over the settings, each of the same weight, with the error that the term asks for.

    None where there is no error: one run a cell and fewer than two settings.
    """
    count, mean = len(settings), statistics.fmean(each.mean for each in settings)
    if term.kind == "interactions" and count < 2:
        return None
    if term.kind == "interactions":
        error, df = statistics.stdev(each.mean for each in settings) / math.sqrt(count), float(count - 1)
    elif term.kind == "seeds" and count > 1 and all(each.by_seed for each in settings):
        error, df = _over_seeds(settings)
    else:
        error, df = _within(settings, term)
    if mean == 0 and error == 0:  # the same figures everywhere
        return Estimate(mean=0.0, error=0.0, df=max(df, 1.0))
    rounded = math.sqrt(math.fsum(2 * term.resolution / each.runs for each in settings)) / count
    return Estimate(mean=mean, error=max(error, rounded), df=max(df, 1.0)) if df > 0 else None


def _within(settings: Sequence[Difference], term: ErrorTerm) -> tuple[float, float]:
    """The error and its df where seeds are repetitions: from the settings' own runs where these are enough.

    Else from the runs of all cells, if all vary alike and these no more; a setting with one pair borrows that in any
    case. What seeds share comes on top: in all of their runs, where the sides have other seeds; in those of a value.
    """
    own = [part for each in settings for part in each.own]
    free, pooled = math.fsum(df for _, df in own), math.fsum(each.pooled for each in settings)
    more = math.fsum(v for v, _ in own) / pooled if pooled > 0 else math.inf
    if free < ENOUGH and term.equal and not (free and fdtrc(free, term.df, more) < ALIKE):
        variance, df = pooled, term.df
    else:
        alone = [bool(each.own) and all(df for _, df in each.own) for each in settings]
        parts = [part for each, enough in zip(settings, alone, strict=True) if enough for part in each.own]
        borrowed = math.fsum(each.pooled for each, enough in zip(settings, alone, strict=True) if not enough)
        variance, df = math.fsum(part for part, _ in parts) + borrowed, welch([*parts, (borrowed, term.df)])
    variance /= len(settings) ** 2
    a, b = (_mean_weights([each.weights[side] for each in settings]) for side in (0, 1))
    block = term.block[0] * math.fsum((a.get(seed, 0.0) - b.get(seed, 0.0)) ** 2 for seed in {*a, *b})
    along = term.along[0] * math.fsum(weight**2 for side in (a, b) for weight in side.values())
    shared = [(part, df) for part, df in ((block, term.block[1]), (along, term.along[1])) if part]
    total = math.fsum([variance, block, along])
    return math.sqrt(total), welch([(variance, df), *shared]) if shared else df


def _mean_weights(settings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each seed in a mean over settings."""
    seeds = dict.fromkeys(seed for weights in settings for seed in weights)
    return {seed: math.fsum(weights.get(seed, 0.0) for weights in settings) / len(settings) for seed in seeds}


def _over_seeds(settings: Sequence[Difference]) -> tuple[float, float]:
    """The same where a seed is one repetition, over all settings that have it; no df where there is one."""
    shares: dict[str, float] = {}
    for each in settings:
        for seed, share in each.by_seed.items():
            shares[seed] = shares.get(seed, 0.0) + share / len(settings)
    n = len(shares)
    return (math.sqrt(n / (n - 1) * math.fsum(s**2 for s in shares.values())), n - 1) if n > 1 else (math.nan, 0)


def welch(parts: Sequence[tuple[float, float]]) -> float:
    """Degrees of freedom of a sum of independent variances, each estimated with its own.

    Welch (Biometrika 34, 1947): with few degrees of freedom the squares of estimated variances are too large on
    average, which `+ 2` and `- 2` mend. Never above what the parts have together.
    """
    known = [(variance, df) for variance, df in parts if df > 0 and variance > 0]
    total, most = math.fsum(variance for variance, _ in known), sum(df for _, df in known)
    below = math.fsum(variance**2 / (df + 2) for variance, df in known)
    if below <= 0:
        return float(max(sum(df for _, df in parts), 1))
    return min(max(total**2 / below - 2, min(df for _, df in known)), float(most))


def quantile(df: float, level: float) -> float:
    """Beyond which, on both sides, Student's t lies in a share `level` of cases."""
    return float(stdtrit(df, 1 - level / 2))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values for being shown among all of them (Holm, Scand. J. Statist. 6, 1979), in the order given."""
    adjusted, before = [0.0] * len(ps), 0.0
    for step, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        before = max(before, min(1.0, (len(ps) - step) * ps[i]))
        adjusted[i] = before
    return adjusted


def simultaneous(estimates: Sequence[Estimate], adjusted: Sequence[float]) -> list[tuple[float, float]]:
    """Intervals that hold together in 95 % of cases (Bonferroni's), and agree with Holm's p-values, `adjusted`.

    What Holm shows in a later step, while the interval reaches over zero, ends at zero: its sign is all that is sure
    beside (Strassburger and Bretz, Stat. Med. 27, 2008; Guilbaud, Biom. J. 50, 2008).
    """
    found = []
    for estimate, p in zip(estimates, adjusted, strict=True):
        low, high = estimate.interval(LEVEL / len(estimates))
        if p <= LEVEL:
            low, high = (max(low, 0.0), high) if estimate.mean > 0 else (low, min(high, 0.0))
        found.append((low, high))
    return found


def detectable(error: float, df: float, level: float) -> float:
    """The true difference that is shown with 80 % power, with this standard error and level."""
    return error * float(nctdtrinc(df, 1 - POWER, quantile(df, level)))


def seeds_needed(estimate: Estimate, seeds: float, size: float, level: float) -> int | None:
    """With how many seeds a cell a true difference of `size` is shown with 80 % power; None: more than 1,000.

    `seeds`: how many a cell has now. Degrees of freedom grow with the seeds, from what they are.
    """
    each = estimate.df / max(seeds - 1, 1)

    def enough(n: int) -> bool:
        return detectable(estimate.error * math.sqrt(seeds / n), max(each * (n - 1), 1.0), level) <= size

    found = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=enough)
    return found if found <= MOST_SEEDS else None
