"""Which job is best: ranked by state and headline, averaged over seeds, each choice at its own best learning rate."""

import json
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result, State

TUNED = "optimizer.lr"  # what every choice may have its own best value of
CHAINS = ("degradation",)  # groups of which several may be chosen, in an order
UNDECLARED = Figure(name="figure", title="figure")
ORDER: dict[State, int] = {"finished": 0, "pruned": 1, "stopped": 2, "diverged": 3, "failed": 4}


def chosen(choices: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The config groups of the project and the names chosen in them, from Hydra's `runtime.choices`.

    Hydra's own groups and groups with nothing chosen are left out, and so is the package of a key. A chain of several
    names of one group (`degradation=[blur,bicubic]`), which Hydra does not list, is told by the keys of its node.
    """
    said = {
        key.split("@")[0]: value if isinstance(value, str) else json.dumps(list(value))
        for key, value in choices.items()
        if value is not None and not key.startswith(("hydra/", "local"))
    }
    chains = {key: f"[{','.join(config[key])}]" for key in CHAINS if config and key in config and key not in said}
    return {**said, **chains}


def declared(results: Iterable[Result]) -> tuple[Figure, ...]:
    """What results are judged by: as the first of them that says it."""
    return next((result.declared for result in results if result.declared), ())


def headline(results: Iterable[Result]) -> Figure:
    """What results are ranked by; `UNDECLARED` where none of them says it."""
    return next(iter(declared(results)), UNDECLARED)


def rank(jobs: Mapping[str, Result]) -> dict[str, Result]:
    """The jobs from best to worst: by state, then by the headline, then as they came."""
    return dict(sorted(jobs.items(), key=lambda job: (ORDER[job[1].state], -_mean_worth([job[1]]))))


def differing(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys whose values are not the same in all jobs, in the order in which they are first named."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def grouped(
    results: Sequence[Result], but: Collection[str] = (), columns: Sequence[str] | None = None
) -> tuple[list[str], dict[tuple[str, ...], list[Result]]]:
    """What differs between results, beside `but` (or the `columns` given), and the results by the values of that."""
    found = [key for key in differing([r.settings for r in results]) if key not in but] if columns is None else columns
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        groups.setdefault(tuple(result.settings.get(key, "") for key in found), []).append(result)
    return list(found), groups


def finished(group: Iterable[Result]) -> list[Result]:
    """Those whose figures count."""
    return [result for result in group if result.state == "finished"]


def mean_worth(group: Iterable[Result]) -> float:
    """Mean of the headline over those that finished, higher for better; -inf where none did."""
    return _mean_worth(finished(group))


def _mean_worth(group: Iterable[Result]) -> float:
    known = [r.headline.worth(r.value) for r in group if r.headline is not None and r.value is not None]
    return statistics.fmean(known) if known else -math.inf


def at_best_rate(results: Sequence[Result]) -> list[Result]:
    """The results of every set of choices at the learning rate that is best for it; all, where no rates were swept.

    One rate for all would decide which choice wins. The best rate is that of the best mean headline over the seeds,
    among those with which the most seeds finished.
    """
    best: list[Result] = []
    for group in grouped(results, but={TUNED, "seed"})[1].values():
        rates = grouped(group, columns=[TUNED])[1].values()
        best += max(rates, key=lambda seeds: (len(finished(seeds)), mean_worth(seeds)))
    return best
