"""What runs say of chance: the error term of comparisons, from repeated runs, or from what interactions leave.

A cell is a combination of choices, its runs differ in the seed alone. After Montgomery, Design and Analysis of
Experiments, and Box, Hunter and Hunter, Statistics for Experimenters: replicated runs give the error ("pure error");
without them what interactions leave stands in for it. Plain numbers in, plain numbers out.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import chdtr, chdtrc, fdtrc

LEVEL = 0.05  # of tests and intervals
REFUTED = 0.01  # level at which a choice shows that seeds do not move it as they move others
ALIKE = 0.25  # and of that for cells that vary alike: pooled where it is likely, as is usual (Bancroft)
MOST_DIGITS = 4  # after the point, of figures that somebody rounded
Kind = Literal["pure error, paired by seed", "pure error", "seeds", "interactions"]
Cell = tuple[str, ...]  # a value of each choice
Runs = Mapping[str, float]  # of one cell: seed -> figure


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
