"""How sure a mean difference is: its error term, Student's intervals, Holm, and the power of a design.

A cell is a combination of choices, its runs differ in the seed alone. After Montgomery, Design and Analysis of
Experiments, and Box, Hunter and Hunter, Statistics for Experimenters: replicated runs give the error ("pure error");
without them what interactions leave stands in for it. Plain numbers in, plain numbers out.
"""

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import chdtr, chdtrc, fdtrc, nctdtrinc, stdtr, stdtrit

LEVEL, POWER = 0.05, 0.8
REFUTED = 0.01  # level at which a choice shows that seeds do not move it as they move others
ALIKE = 0.25  # and of that for cells that vary alike: pooled where it is likely, as is usual (Bancroft)
ENOUGH = 10  # degrees of freedom, with which a comparison needs no other runs than its own
MOST_SEEDS = 1000  # more are not looked for
MOST_DIGITS = 4  # after the point, of figures that somebody rounded
Kind = Literal["pure error, paired by seed", "pure error", "seeds", "interactions"]
Cell = tuple[str, ...]  # a value of each choice
Runs = Mapping[str, float]  # of one cell: seed -> figure


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
class ErrorTerm:
    """What runs say of chance, for all comparisons or for those of one choice.

    Attributes:
        kind: `pure error, paired by seed`: the runs within cells; those of one seed and setting are a block, whatever
            they share (crops, the very weights). `pure error`: the same where cells have no seeds in common. `seeds`: a
            seed moves the choice alike in all settings, so that it is one repetition, however many settings it has.
            `interactions`: what the settings' differences vary by.
        variance: of a run, pooled over the settings; nan where no cell has two.
        df: of that.
        equal: whether they vary alike; else each has its own variance, and Welch's degrees of freedom count.
        resolution: variance that rounding the figures gives each, below which nothing is known.
        block: variance of what a seed adds to all of its runs, and its degrees of freedom; runs that are compared by
            seed are free of it, others are not.
        along: the same of what a seed adds to a value of a choice in all settings.
        block_p, along_p: of the seeds having no means of their own, and of a seed not moving choices.
    """

    kind: Kind
    variance: float = math.nan
    df: float = 0
    equal: bool = True
    resolution: float = 0.0
    block: tuple[float, float] = (0.0, 1.0)
    along: tuple[float, float] = (0.0, 1.0)
    block_p: float | None = None
    along_p: float | None = None


def error_term(cells: Mapping[Cell, Runs]) -> ErrorTerm:
    """The error that these cells (a value of each choice -> their runs) give; see `of_choice` for those of one."""
    known = [runs for runs in cells.values() if runs]
    repeated = {cell: runs for cell, runs in cells.items() if len(runs) > 1}
    often = Counter(seed for runs in known for seed in runs)
    shared = sum(often[seed] > 1 for runs in known for seed in runs)
    resolution = rounding([y for runs in known for y in runs.values()])
    if 2 * len(repeated) < len(known) or not repeated:  # a few second runs are not the error of all
        return ErrorTerm(kind="interactions", resolution=resolution)
    rows = [(cell, seed, y) for cell, runs in repeated.items() for seed, y in runs.items()]
    alone = _Centred(rows)
    if 2 * shared < sum(often.values()) or len(repeated) == 1:
        kind: Kind = "pure error"
        equal = vary_alike(*alone.by_group())
        return ErrorTerm(kind=kind, variance=alone.mean_square, df=alone.df, equal=equal, resolution=resolution)
    paired = [row for row in rows if often[row[1]] > 1]
    beside = _Centred(paired, strata=[0] * len(paired))
    if beside.df < 1:
        return ErrorTerm(kind="interactions", resolution=resolution)
    along = beside.test(*([(cell[at], seed) for cell, seed, _ in paired] for at in range(len(rows[0][0]))))
    block = alone.test([seed for _, seed, _ in rows])
    return ErrorTerm(
        kind="pure error, paired by seed",
        variance=beside.mean_square,
        df=beside.df,
        equal=vary_alike(*beside.by_group()),
        resolution=resolution,
        block=block.variance,
        along=along.variance,
        block_p=block.p,
        along_p=along.p,
    )


def of_choice(term: ErrorTerm, cells: Mapping[Cell, Runs], at: int) -> ErrorTerm:
    """The error of the comparisons of one choice, at this place in a cell.

    What is left of the runs of all values beside their settings' seeds, pooled over the settings. Whether a seed moves
    the choice alike in all settings is tested by F; what it moves all choices by counts besides, unless this choice
    shows that it is not so here. Whether settings (with more than two values also the cells) vary alike is tested by
    Bartlett's test.
    """
    if term.kind != "pure error, paired by seed":
        return term
    rows = [
        ((*cell[:at], *cell[at + 1 :]), cell[at], seed, y) for cell, runs in cells.items() for seed, y in runs.items()
    ]
    counts = Counter((rest, seed) for rest, _, seed, _ in rows)
    paired = [((rest, value), (rest, seed), y) for rest, value, seed, y in rows if counts[rest, seed] > 1]
    found = _Centred(paired, strata=[rest for (rest, _), _, _ in paired])
    if found.df < 1:
        return term
    values = Counter(rest for rest, _ in {place for place, _, _ in paired})
    # of two values both say the same: the setting is what varies
    parts = found.by_group([rest if values[rest] == 2 else (rest, value) for (rest, value), _, _ in paired])
    moved = found.test([(value, seed) for (_, value), (_, seed), _ in paired])
    return replace(
        term,
        variance=found.mean_square,
        df=found.df,
        equal=vary_alike(*parts),
        along=term.along if moved.fits(term.along[0]) else (0.0, 1.0),
        along_p=moved.p,
        kind="seeds" if moved.p is not None and moved.p < LEVEL else term.kind,
    )


class _Centred:
    """Runs (cell, seed, figure) without the means of their cells and, as blocks in each stratum, of their seeds."""

    def __init__(
        self, rows: Sequence[tuple[Hashable, Hashable, float]], strata: Sequence[Hashable] | None = None
    ) -> None:
        self._place = _numbered([cell for cell, _, _ in rows])
        seeds, self._blocks = [seed for _, seed, _ in rows], list[tuple[np.ndarray, np.ndarray]]()
        for at in _split(strata or ()):
            centred = _centred(_dummies([seeds[i] for i in at]), _numbered(list(self._place[at])))
            self._blocks.append((at, _basis(centred)))
        y = np.array([figure for _, _, figure in rows])
        self.residuals = self.without(y[:, None])[:, 0] if rows else y
        self.residuals[np.abs(self.residuals) < 8 * np.finfo(float).eps * np.abs(y).max(initial=0)] = 0  # rounding
        gone = sum(int(basis.shape[1]) for _, basis in self._blocks)
        self.df = len(rows) - len(set(self._place)) - gone

    @property
    def mean_square(self) -> float:
        """The variance of a run."""
        return float(self.residuals @ self.residuals) / self.df

    def without(self, columns: np.ndarray) -> np.ndarray:
        """The columns without these means."""
        left = _centred(columns, self._place)
        for at, basis in self._blocks:
            left[at] -= basis @ (basis.T @ left[at])
        return left

    def by_group(self, groups: Sequence[Hashable] | None = None) -> tuple[list[float], list[float]]:
        """The squares of each group (by itself: each cell) and their share of the degrees of freedom."""
        place = self._place if groups is None else _numbered(groups)
        counts, squares = np.bincount(place), np.bincount(place, self.residuals**2)
        free = counts - [len(set(self._place[place == i])) for i in range(len(counts))]
        return list(map(float, squares)), list(map(float, free * self.df / max(free.sum(), 1)))

    def test(self, *groups: Sequence[Hashable]) -> "_Moved":
        """Whether groups of rows have means of their own, and how much these vary."""
        columns = np.hstack([self.without(_dummies(each)) for each in groups])
        basis = _basis(columns)
        gone, rest = basis.shape[1], self.df - basis.shape[1]
        if gone < 1 or rest < 1:
            return _Moved()
        explained = float(((basis.T @ self.residuals) ** 2).sum())
        left = max(0.0, float(self.residuals @ self.residuals) - explained)
        if left <= 1e-12 * explained or explained == 0:
            return _Moved(p=float(explained == 0))
        square, noise = explained / gone, left / rest
        return _Moved(
            p=float(fdtrc(gone, rest, square / noise)),
            square=square,
            df=gone,
            noise=noise,
            noise_df=rest,
            size=float((columns**2).sum()) / gone,
        )


@dataclass(frozen=True, kw_only=True)
class _Moved:
    """An F-test of random effects: their mean square, that of the rest, and `size` such effects in a square.

    `p` is None where nothing would be left to test against.
    """

    p: float | None = None
    square: float = 0.0
    df: float = 0
    noise: float = 0.0
    noise_df: float = 0
    size: float = 0.0

    @property
    def variance(self) -> tuple[float, float]:
        """Of an effect, by moments, with its degrees of freedom; 0 where the test gives no hint of any."""
        if self.p is None or self.p >= ALIKE or not self.size:
            return 0.0, 1.0
        df = (self.square - self.noise) ** 2 / (self.square**2 / self.df + self.noise**2 / self.noise_df)
        return (self.square - self.noise) / self.size, df

    def fits(self, variance: float) -> bool:
        """Whether these effects may vary as much as that: not refuted at 1 %."""
        expected = self.noise + self.size * variance
        return not expected or float(chdtr(self.df, self.df * self.square / expected)) >= REFUTED


def _centred(columns: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The columns without the means of the rows at the same place."""
    sums = np.zeros((int(place.max(initial=-1)) + 1, columns.shape[1]))
    np.add.at(sums, place, columns)
    return np.asarray(columns - (sums / np.bincount(place)[:, None])[place])


def _split(strata: Sequence[Hashable]) -> list[np.ndarray]:
    """Which rows are of each stratum."""
    place = _numbered(strata)
    return [np.flatnonzero(place == i) for i in range(int(place.max(initial=-1)) + 1)]


def _numbered(keys: Sequence[Hashable]) -> np.ndarray:
    """Each key as its place among the different ones."""
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([places[key] for key in keys], dtype=int)


def _dummies(groups: Sequence[Hashable]) -> np.ndarray:
    """A column a group: which rows are of it."""
    place = _numbered(groups)
    return np.asarray(np.eye(int(place.max(initial=-1)) + 1)[place])


def _basis(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns that span the same."""
    values, vectors = np.linalg.eigh(columns.T @ columns)
    kept = values > 1e-9 * max(1.0, float(values.max(initial=0)))
    found: np.ndarray = columns @ (vectors[:, kept] / np.sqrt(values[kept]))
    return found


def rounding(values: Sequence[float]) -> float:
    """The variance of a rounding error, where all values have few digits: 0.1 after the point gives 0.1² / 12."""
    digits = next((n for n in range(MOST_DIGITS) if all(round(value, n) == value for value in values)), None)
    return 0.0 if digits is None else 100.0**-digits / 12


def vary_alike(squares: Sequence[float], df: Sequence[float]) -> bool:
    """Bartlett's test (Proc. R. Soc. A 160, 1937) on sums of squares: whether one variance for all is not refuted."""
    known = [(s, n) for s, n in zip(squares, df, strict=True) if n > 0]
    if len(known) < 2 or not any(s for s, _ in known):
        return True
    if not all(s for s, _ in known):
        return False
    total, groups = math.fsum(n for _, n in known), len(known)
    pooled = math.fsum(s for s, _ in known) / total
    statistic = total * math.log(pooled) - math.fsum(n * math.log(s / n) for s, n in known)
    statistic /= 1 + (math.fsum(1 / n for _, n in known) - 1 / total) / (3 * (groups - 1))
    return float(chdtrc(groups - 1, statistic)) >= ALIKE


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
