"""What a figure varies by: each choice, each pair of choices, the seeds, and the rest, as shares of the variance.

Sums of squares of type II (Yates 1934; Langsrud, Stat. Comput. 13, 2003): what a term explains beside all terms that do
not hold it. On a full grid they are the textbook's and add up to the whole; where runs are missing they need not.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from scipy.special import fdtrc

from upsweep.analysis.error_terms import ALIKE
from upsweep.analysis.inference import holm
from upsweep.analysis.study import MOST_VALUES, UNKNOWN, Study

LARGE, SURE = 0.02, 0.05  # an interaction is shown from this share on, and to this p
MOST_SHOWN = 3
SEED, REST = "seed", "rest"
Term = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of the variance: `of` names a choice, two choices, `seed` or `rest`.

    `p` of it being chance; None where no second seed tells what chance is.
    """

    of: Term
    share: float
    df: int
    p: float | None = None

    @property
    def name(self) -> str:
        """`norm`, `activation x norm`."""
        return " x ".join(self.of)


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """The means that show how one choice depends on another: `means[i][j]` of the i-th row's and j-th column's value.

    None where no run finished.
    """

    of: tuple[str, str]
    share: float
    rows: Sequence[str]
    columns: Sequence[str]
    means: Sequence[Sequence[float | None]]


@dataclass(frozen=True, kw_only=True)
class Variance:
    """Of the runs of a study; `left_out` counts those that have no figure, by how they ended."""

    shares: Sequence[Share]
    runs: int
    left_out: Mapping[str, int]
    interactions: Sequence[Interaction]

    @property
    def adds_up(self) -> bool:
        """Whether the shares are those of a whole."""
        return math.isclose(math.fsum(share.share for share in self.shares), 1, abs_tol=1e-6)


@lru_cache(maxsize=16)
def explained(study: Study) -> Variance | None:
    """The table of a study; None where nothing varies, or fewer than three runs finished.

    Page and JSON ask for the same one: it is worked out once.
    """
    cells = {cell: runs for cell, runs in study.cells.items() if UNKNOWN not in cell}
    rows = [(*cell, seed) for cell, runs in cells.items() for seed in runs]
    y = np.array([value for runs in cells.values() for value in runs.values()])
    if len(y) < 3 or np.ptp(y) == 0:
        return None
    named = dict(zip((*study.keys, SEED), zip(*rows, strict=True), strict=True))
    main = [key for key in study.keys if 2 <= len(set(named[key])) <= MOST_VALUES]
    terms: list[Term] = [(key,) for key in main] + list(combinations(main, 2))
    if study.term.kind == "pure error, paired by seed":  # else seeds are not told apart from the choices
        terms.append((SEED,))
    if not terms:
        return None
    y = y - y.mean()
    moved = [(key, SEED) for key in main if _is_moved(study, key)]
    model = _Model(y, {term: _columns(named, term) for term in [*terms, *moved]})
    total, (rest, rest_df) = float(y @ y), model.left(terms)
    chance: dict[Term, tuple[float, float]] = {of[:1]: model.beside(of, terms) for of in moved}
    error = study.term.variance, study.term.df
    shares = [_share(term, terms, model, total, chance.get(term, error)) for term in terms]
    shares.append(Share(of=(REST,), share=rest / total, df=rest_df))
    return Variance(
        shares=shares,
        runs=len(y),
        left_out=_left_out(study),
        interactions=[_interaction(study, one) for one in _shown(shares)],
    )


def _is_moved(study: Study, key: str) -> bool:
    """Whether a seed may have the same effect on a choice in all settings: then its runs are no repetitions."""
    p = study.terms[key].along_p if key in study.terms else None
    return p is not None and p < ALIKE


def _share(term: Term, terms: Sequence[Term], model: "_Model", total: float, error: tuple[float, float]) -> Share:
    """Beside all that do not hold it; p against `error`, a mean square and its freedom, as of the effects."""
    square, df = model.beside(term, [other for other in terms if not {*term} <= {*other}])
    chance, free = error
    known = df > 0 and free > 0 and chance > 1e-12 * total
    p = float(fdtrc(df, free, square / chance)) if known else None
    return Share(of=term, share=square * df / total, df=df, p=p)


def _shown(shares: Sequence[Share]) -> list[Share]:
    """The largest interactions that are not chance, by Holm over all of them."""
    pairs = [one for one in shares if len(one.of) == 2]
    sure = holm([0.0 if one.p is None else one.p for one in pairs])
    shown = [one for one, p in zip(pairs, sure, strict=True) if one.share >= LARGE and p <= SURE]
    return sorted(shown, key=lambda one: -one.share)[:MOST_SHOWN]


def _left_out(study: Study) -> dict[str, int]:
    """How those runs ended that have no figure; of runs that repeat one another, the first."""
    runs = [
        runs for cell, by_seed in study.runs.items() for seed, runs in by_seed.items() if seed not in study.cells[cell]
    ]
    return dict(Counter[str](of[0].state for of in runs if of[0].state != "finished"))


def _columns(named: Mapping[str, Sequence[str]], term: Term) -> np.ndarray:
    """A dummy column for each value of the term, but the first of each of its keys."""
    columns = np.ones((len(next(iter(named.values()))), 1))
    for key in term:
        values = list(dict.fromkeys(named[key]))[1:]
        dummies = np.array([[float(one == value) for value in values] for one in named[key]])
        columns = (columns[:, :, None] * dummies[:, None, :]).reshape(len(dummies), -1)
    return columns


class _Model:
    """Least squares on any of the terms' columns and a mean: products of all columns are taken once."""

    def __init__(self, y: np.ndarray, columns: Mapping[Term, np.ndarray]) -> None:
        self._y, start = y, 0
        self._places: dict[Term, range] = {}
        for term, block in columns.items():
            self._places[term] = range(start, start + block.shape[1])
            start += block.shape[1]
        matrix = np.hstack(list(columns.values()))
        matrix = matrix - matrix.mean(axis=0)
        self._gram, self._with_y = matrix.T @ matrix, matrix.T @ y

    def beside(self, term: Term, terms: Sequence[Term]) -> tuple[float, int]:
        """The mean square of what a term explains beside others, and its degrees of freedom."""
        (before, before_df), (after, after_df) = self.left(terms), self.left([*terms, term])
        df = before_df - after_df
        return max(0.0, before - after) / max(df, 1), df

    def left(self, terms: Sequence[Term]) -> tuple[float, int]:
        """The sum of squares that these terms leave, and its degrees of freedom."""
        at = [place for term in terms for place in self._places[term]]
        if not at:
            return float(self._y @ self._y), len(self._y) - 1
        values, vectors = np.linalg.eigh(self._gram[np.ix_(at, at)])
        kept = values > 1e-9 * max(1.0, float(values[-1]))
        parts = vectors[:, kept].T @ self._with_y[at] / np.sqrt(values[kept])
        return max(0.0, float(self._y @ self._y) - float(parts @ parts)), len(self._y) - 1 - int(kept.sum())


def _interaction(study: Study, share: Share) -> Interaction:
    """Means over the cells, each of the same weight, in the figure's own sense."""
    a, b = (study.keys.index(key) for key in share.of)
    rows, columns = (list(dict.fromkeys(cell[at] for cell in study.cells if UNKNOWN not in cell)) for at in (a, b))
    known = {cell: runs for cell, runs in study.cells.items() if runs and UNKNOWN not in cell}
    worth = {cell: statistics.fmean(runs.values()) for cell, runs in known.items()}
    groups: dict[tuple[str, str], list[float]] = {}
    for cell, value in worth.items():
        groups.setdefault((cell[a], cell[b]), []).append(study.figure.worth(value))  # its own inverse
    means = [[statistics.fmean(found) if (found := groups.get((r, c))) else None for c in columns] for r in rows]
    return Interaction(of=(share.of[0], share.of[1]), share=share.share, rows=rows, columns=columns, means=means)
