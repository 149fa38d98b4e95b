"""How two figures go together over many settings: Spearman's rank correlation with its interval, and what is said."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from upsweep.analysis.error_terms import LEVEL
from upsweep.metrics.figure import Figure

FEWEST = 5  # settings: fewer say nothing


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Spearman's rho of `n` pairs: 1 where both rise together, -1 where one falls as the other rises."""

    rho: float
    n: int

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The ends of the interval of rho, which misses the truth in a share `level` of cases.

        Fisher's z with the standard error sqrt((1 + rho^2 / 2) / (n - 3)) of Bonett and Wright (Psychometrika 65,
        2000). Of ranks in one order z is infinite; the interval is then that of the next smaller rho there is, up to 1.
        """
        most = 1 - 12 / (self.n**3 - self.n)  # two neighbours in the other order
        rho = min(max(self.rho, -most), most)
        half = float(-ndtri(level / 2)) * math.sqrt((1 + rho**2 / 2) / (self.n - 3))
        low, high = math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half)
        return min(low, self.rho), max(high, self.rho)

    def shown(self, level: float = LEVEL) -> bool:
        """Whether the interval leaves zero out."""
        low, high = self.interval(level)
        return not low <= 0 <= high


def spearman(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """The rank correlation of pairs; equal values share the mean of their ranks.

    None: there are fewer than 5 pairs, or all values of one side are equal.
    """
    if len(x) < FEWEST or len(set(x)) == 1 or len(set(y)) == 1:
        return None
    rho = float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])
    return Correlation(rho=round(rho, 12), n=len(x))  # never above 1


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, often = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(often) - (often - 1) / 2)[place]
    return ranks


def correlation_sentence(
    found: Correlation, figure: Figure, headline: Figure, level: float = LEVEL, on: str = ""
) -> str:
    """What a person is told of a correlation with the headline; `on` says for which runs: `scale=2`.

    >>> PSNR, field = Figure(name="psnr", title="PSNR"), Figure(name="erf", title="field")
    >>> correlation_sentence(Correlation(rho=0.61, n=36), field, PSNR)
    "Over these 36 settings a larger field goes with a higher PSNR: Spearman's rho 0.61 (0.33 to 0.79)."
    >>> correlation_sentence(Correlation(rho=-0.2, n=12), field, PSNR, on="scale=2")
    "With scale=2, over 12 settings, no relation of field with PSNR is shown: Spearman's rho -0.20 (-0.70 to 0.43)."
    """
    low, high = found.interval(level)
    over = f"With {on}, over {found.n} settings," if on else f"Over these {found.n} settings"
    if found.shown(level):
        goes = f"a larger {figure.title} goes with a {'higher' if found.rho > 0 else 'lower'} {headline.title}"
    else:
        goes = f"no relation of {figure.title} with {headline.title} is shown"
    return f"{over} {goes}: Spearman's rho {_told(found.rho)} ({_told(low)} to {_told(high)})."


def _told(rho: float) -> str:
    return f"{round(rho, 2) + 0.0:.2f}"
