"""Which job is best: ranked by state and headline, averaged over seeds, each choice at its own best learning rate."""

import json
import math
import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from upsweep.analysis.yardsticks import told_apart
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result, State

TUNED = "optimizer.lr"  # what every choice may have its own best value of
CHAINS = ("degradation",)  # groups of which several may be chosen, in an order
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
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
    return dict(sorted(jobs.items(), key=lambda job: (ORDER[job[1].state], -mean_worth([job[1]]))))


def differing(settings: Sequence[Mapping[str, str]], but: Collection[str] = ()) -> list[str]:
    """The keys, but those in `but`, whose values are not the same in all jobs, in the order of their first mention."""
    keys = dict.fromkeys(key for each in settings for key in each if key not in but)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def gathered(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by their key, in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def grouped(results: Iterable[Result], columns: Sequence[str]) -> dict[tuple[str, ...], list[Result]]:
    """The results by the values of these settings."""
    return gathered(results, lambda result: tuple(result.settings.get(key, "") for key in columns))


def by_choices(results: Sequence[Result]) -> list[list[Result]]:
    """The results of every set of choices, judged on the same images, at whatever learning rates and with any seeds."""
    results = told_apart(results)
    return list(grouped(results, differing([r.settings for r in results], but=(TUNED, "seed"))).values())


def finished(group: Iterable[Result]) -> list[Result]:
    """Those whose figures count."""
    return [result for result in group if result.state == "finished"]


def mean_worth(group: Iterable[Result]) -> float:
    """Mean of the headline, higher for better; -inf where none is known."""
    known = [r.headline.worth(r.value) for r in group if r.headline is not None and r.value is not None]
    return statistics.fmean(known) if known else -math.inf


def at_best_rate(results: Sequence[Result]) -> list[Result]:
    """The results of every set of choices at the learning rate that is best for it; all, where no rates were swept.

    One rate for all would decide which choice wins. The best rate is that of the best mean headline over the seeds,
    among those with which the most seeds finished.
    """
    best: list[Result] = []
    for group in by_choices(results):
        rates = grouped(group, [TUNED]).values()
        best += max(rates, key=lambda seeds: (len(finished(seeds)), mean_worth(finished(seeds))))
    return best
