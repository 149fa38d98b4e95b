"""Tables of the figures of many runs' explanations, and how these figures correlate with the runs' results."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from upsweep.analysis.correlation import Correlation, correlation_sentence, spearman
from upsweep.analysis.error_terms import LEVEL
from upsweep.analysis.ranking import declared, differing, gathered, headline, mean_worth
from upsweep.analysis.tables import of_seeds, seeds_of, spread
from upsweep.analysis.yardsticks import JUDGED, moves_yardstick
from upsweep.common.table import Table
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result
from upsweep.runs.why import Why

SEEN = ("image", "window")  # what a network was explained on
APART = (*SEEN, JUDGED)  # where these differ, figures are not compared


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A run, and what src/explain.py found of its best checkpoint."""

    name: str
    result: Result
    why: Why

    @property
    def seed(self) -> int | None:
        """That of the run."""
        return self.result.seed

    @cached_property
    def settings(self) -> dict[str, str]:
        """What was set, and what the network was explained on."""
        x_y_side = ",".join(map(str, self.why.window))
        return self.result.settings | dict(zip(SEEN, (self.why.image, x_y_side), strict=True))

    def reached(self, figure: Figure) -> float | None:
        """A figure of the task at the best epoch, whose weights are explained."""
        return self.result.figures.get(figure.name)

    def found(self, figure: Figure) -> float | None:
        """A figure of the explanation."""
        return self.why.figures.get(figure.name)


Column = tuple[Figure, Callable[[Explained], float | None]]


def measured(runs: Sequence[Explained]) -> list[Figure]:
    """The figures of the explanations, in the order in which they are declared."""
    return list({figure.name: figure for run in runs for figure in run.why.meanings}.values())


def explained_table(runs: Sequence[Explained], keys: Sequence[str]) -> Table:
    """A row a run, in their order: its settings of `keys`, what it reached, and what was found of it."""
    columns, numbers = _settings(runs, keys), _numbers(runs)
    return Table(
        title="",
        headers=["job", *columns, *(figure.label for figure, _ in numbers)],
        rows=[
            [
                run.name,
                *(run.settings.get(key, "") for key in columns),
                *(figure.format(value(run)) for figure, value in numbers),
            ]
            for run in runs
        ],
        left=1 + len(columns),
    )


def explained_seed_table(runs: Sequence[Explained], keys: Sequence[str]) -> Table | None:
    """A row a setting, the best first: mean ± sample sd over its seeds; None where no setting has two."""
    columns = [key for key in _settings(runs, keys) if key != "seed"]
    numbers, groups = _numbers(runs), _by(runs, columns)
    if all(seeds_of(group) < 2 for group in groups.values()):
        return None
    ranked = sorted(groups.items(), key=lambda group: -mean_worth([run.result for run in group[1]]))
    return Table(
        title="",
        headers=[*columns, *(figure.label for figure, _ in numbers), "seeds"],
        rows=[
            [*setting, *(spread(figure, of_seeds(group, value)) for figure, value in numbers), str(seeds_of(group))]
            for setting, group in ranked
        ],
        left=len(columns),
    )


def relations(runs: Sequence[Explained], keys: Sequence[str]) -> list[str]:
    """How each figure of the explanations correlates with the headline, a sentence each; clear relations come first.

    Runs that were judged or explained on other images are kept apart. Seeds of one setting are not independent: their
    mean counts once. All intervals together hold the truth in 95 % of sweeps (Bonferroni).
    """
    columns = [key for key in _settings(runs, keys) if key != "seed"]
    apart = [key for key in columns if key in APART or moves_yardstick(key)]
    reached = headline([run.result for run in runs])
    found: list[tuple[Correlation, Figure, str]] = []
    for values, alike in _by(runs, apart).items():
        on = " ".join(f"{key}={value}" for key, value in zip(apart, values, strict=True))
        settings = list(_by(alike, columns).values())
        known = [(_correlation(settings, figure, reached), figure) for figure in measured(alike)]
        found += [(correlation, figure, on) for correlation, figure in known if correlation is not None]
    level = LEVEL / max(1, len(found))
    found.sort(key=lambda one: not one[0].shown(level))
    return [correlation_sentence(one, figure, reached, level, on) for one, figure, on in found]


def _correlation(settings: Sequence[Sequence[Explained]], figure: Figure, reached: Figure) -> Correlation | None:
    """Over the settings with both values."""
    pairs = [[(run.found(figure), run.reached(reached)) for run in group] for group in settings]
    known = [[(x, y) for x, y in group if x is not None and y is not None] for group in pairs]
    means = [[statistics.fmean(side) for side in zip(*group, strict=True)] for group in known if group]
    return spearman([x for x, _ in means], [y for _, y in means])


def _settings(runs: Sequence[Explained], keys: Sequence[str]) -> list[str]:
    """The keys, and further columns that separate what must not be compared."""
    return [*keys, *differing([{key: run.settings.get(key, "") for key in APART} for run in runs])]


def _by(runs: Sequence[Explained], keys: Sequence[str]) -> dict[tuple[str, ...], list[Explained]]:
    return gathered(runs, lambda run: tuple(run.settings.get(key, "") for key in keys))


def _numbers(runs: Sequence[Explained]) -> list[Column]:
    task = [f for f in declared(run.result for run in runs) if any(run.reached(f) is not None for run in runs)]
    return [
        *((figure, lambda run, figure=figure: run.reached(figure)) for figure in task),
        *((figure, lambda run, figure=figure: run.found(figure)) for figure in measured(runs)),
    ]
