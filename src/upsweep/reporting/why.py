"""The page's section "Why": what src/explain.py found of the runs, where it was run."""

from collections.abc import Sequence
from dataclasses import dataclass

from upsweep.analysis.explained import Explained, explained_seed_table, explained_table, measured, relations
from upsweep.analysis.study import swept
from upsweep.common.table import Table
from upsweep.reporting.sweep import Run

MOST_STRIPS = 800_000  # bytes of the strips of the best runs: one has 5 to 20 kB
MOST_SPECTRA = 100  # runs: a line each in two plots
KINDS = ("restored", "invented")


@dataclass(frozen=True, kw_only=True, eq=False)
class WhySection:
    """What the section shows; all runs best first.

    Attributes:
        explained: those that have a record.
        tables: under their captions.
        lower: headers of the columns in which lower values are better.
        relations: a sentence on each figure and the headline.
        spectra: by the name of a run, `frequency` (1: HR's highest), `restored`, `invented` (1: as much as HR's power).
        scale: of all of these, None where they differ: LR holds no frequency above 1 / scale.
        strips: the runs whose strips have room.
        pictured: how many have a strip.
    """

    explained: Sequence[Explained]
    tables: Sequence[tuple[str, Table]]
    lower: set[str]
    relations: Sequence[str]
    spectra: dict[str, dict[str, list[float]]]
    scale: int | None
    strips: Sequence[Run]
    pictured: int

    @property
    def images(self) -> list[str]:
        """On which images the runs were explained."""
        return list(dict.fromkeys(run.why.image for run in self.explained))


def section_of(runs: Sequence[Run], spread: str) -> WhySection | None:
    """The section, of runs in the order of their rank; None where none has a record. `spread` says what ± means."""
    explained = [Explained(name=run.name, result=run.result, why=run.why) for run in runs if run.why is not None]
    if not explained:
        return None
    keys = swept([run.result for run in runs])
    over_seeds = explained_seed_table(explained, keys)
    spectra = {run.name: found for run in explained if (found := spectrum_of(run))}
    spectra = dict(list(spectra.items())[:MOST_SPECTRA])
    pictured = [run for run in runs if run.why is not None and run.strip is not None]
    scales = {run.result.scale for run in explained if run.name in spectra}
    return WhySection(
        explained=explained,
        tables=[
            *([(spread, over_seeds)] if over_seeds is not None else []),
            ("Every run that was explained", explained_table(explained, keys)),
        ],
        lower={figure.label for figure in measured(explained) if figure.better == "lower"},
        relations=relations(explained, keys),
        spectra=spectra,
        scale=scales.pop() if len(scales) == 1 else None,
        strips=strips_of(pictured),
        pictured=len(pictured),
    )


def spectrum_of(run: Explained) -> dict[str, list[float]]:
    """The columns that are drawn, to four digits; empty where the record does not hold them."""
    names = ("frequency", *KINDS)
    columns = {name: run.why.spectrum[name] for name in names if run.why.spectrum.get(name)}
    if len(columns) < len(names) or len(set(map(len, columns.values()))) > 1:
        return {}
    return {name: [float(f"{value:.4g}") for value in values] for name, values in columns.items()}


def strips_of(runs: Sequence[Run]) -> list[Run]:
    """The best runs whose strips have room on a page."""
    shown, left = [], MOST_STRIPS
    for run in runs:
        if run.strip is not None and (left := left - len(run.strip.webp)) >= 0:
            shown.append(run)
    return shown
