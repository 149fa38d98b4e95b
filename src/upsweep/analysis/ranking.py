"""Which job is best: ranked by state and headline, averaged over seeds, each choice at its own best learning rate."""

import json
import math
import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from upsweep.analysis.yardsticks import told_apart
from upsweep.metrics.figure import Figure
from upsweep.runs.result import TUNED, Result, State, matters, placed

CHAINS = ("degradation", "metrics", "logger")  # groups of which several may be chosen
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
UNDECLARED = Figure(name="figure", title="figure")
ORDER: dict[State, int] = {"finished": 0, "pruned": 1, "stopped": 2, "diverged": 3, "failed": 4}


def chosen(choices: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The config groups of the project and the names chosen in them, from Hydra's `runtime.choices`.

    Hydra's own groups and groups with nothing chosen are left out. A chain of several names of one group
    (`degradation=[blur,bicubic]`), which Hydra does not list, is told by the keys of its node.
    """
    said = {
        placed(key): value if isinstance(value, str) else json.dumps(list(value))
        for key, value in choices.items()
        if value is not None and not key.startswith(("hydra/", "local"))
    }
    chains = {key: f"[{','.join(config[key])}]" for key in CHAINS if config and config.get(key) and key not in said}
    return {**said, **chains}


def declared(results: Iterable[Result]) -> tuple[Figure, ...]:
    """What results are judged by: as the first of them that says it, then what others have of their own besides."""
    figures: dict[str, Figure] = {}
    for result in results:
        for figure in result.declared:
            figures.setdefault(figure.name, figure)
    return tuple(figures.values())


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


def telling(results: Sequence[Result], but: Collection[str] = ()) -> list[str]:
    """The keys, but those in `but`, in which results differ and that may change a figure."""
    return [key for key in differing([result.settings for result in results], but) if matters(key)]


def gathered(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items by their key, in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def grouped(results: Iterable[Result], columns: Sequence[str]) -> dict[tuple[str, ...], list[Result]]:
    """The results by the values of these settings."""
    return gathered(results, lambda result: tuple(result.settings.get(key, "") for key in columns))


def tuned(results: Iterable[Result]) -> tuple[str, ...]:
    """The keys that are no choices, but have their best values for each: as the first of the results says."""
    return next((tuple(result.tuned) for result in results), TUNED)


def rates(results: Sequence[Result]) -> list[str]:
    """Those of the tuned keys of which several values were run."""
    return [key for key in tuned(results) if len({result.settings.get(key) for result in results}) > 1]


def by_choices(results: Sequence[Result]) -> list[list[Result]]:
    """The results of every set of choices, judged on the same images, at whatever learning rates and with any seeds."""
    results = told_apart(results)
    return list(grouped(results, telling(results, but=(*tuned(results), "seed"))).values())


def finished(group: Iterable[Result]) -> list[Result]:
    """Those whose figures count."""
    return [result for result in group if result.state == "finished"]


def mean_worth(group: Iterable[Result]) -> float:
    """Mean of the headline, higher for better; -inf where none is known."""
    known = [r.headline.worth(r.value) for r in group if r.headline is not None and r.value is not None]
    return statistics.fmean(known) if known else -math.inf


def at_best_rate(results: Sequence[Result]) -> list[Result]:
    """The results of every set of choices at the learning rate that is best for it; all, where no rates were swept.

    One rate for all would decide which choice wins. A rate is picked for each seed on the other seeds, that it is not
    judged by the luck which made it the best; where there is one seed, on that. A seed that was not run at its rate is
    missing. The same for whatever else is tuned.
    """
    kept: list[Result] = []
    for group in by_choices(results):
        by_rate = list(grouped(group, tuned(results)).values())
        for seed, of_seed in gathered(group, lambda result: result.seed).items():
            kept += _picked(by_rate, seed) if len(by_rate) > 1 else of_seed
    return kept


def _picked(rates: Sequence[Sequence[Result]], seed: int | None) -> list[Result]:
    """The runs of a seed at the rate that is best on the other seeds.

    Rates are compared on the seeds that they share; without such, the seed's own rates are, on whatever there is.
    """
    judged = _judged(rates, seed)
    seeds = [{*of_rate} for of_rate in judged if of_rate]
    shared = set.intersection(*seeds) if len(seeds) > 1 else set[int | None]()
    ends = [[runs for one, runs in of_rate.items() if one in shared or not shared] for of_rate in judged]
    own = [[run for run in rate if run.seed == seed] for rate in rates]
    pairs = [(mine, of_rate) for mine, of_rate in zip(own, ends, strict=True) if mine or shared]
    return max(pairs, key=lambda pair: (*_merit(pair[1]), len(pair[0]) > 0))[0]


def _judged(rates: Sequence[Sequence[Result]], seed: int | None) -> list[dict[int | None, list[Result]]]:
    """What is known of each rate: seed -> runs, without this seed, where there are others.

    What failed, was stopped or not run says nothing of a rate; what diverged or was pruned speaks against it. A rate
    with less than half of the seeds of another was only tried: it decides for none of them.
    """
    known = [gathered((run for run in rate if run.complete), lambda run: run.seed) for rate in rates]
    most = max(map(len, known))
    known = [of_rate if 2 * len(of_rate) >= most else {} for of_rate in known]
    others = [{one: runs for one, runs in of_rate.items() if one != seed} for of_rate in known]
    return others if any(others) else known


def _merit(by_seed: Sequence[Sequence[Result]]) -> tuple[bool, int, float]:
    """Whether any of its seeds finished, how few others there are, and the mean of those that did."""
    worths = [mean_worth(finished(runs)) for runs in by_seed]
    known = [worth for worth in worths if worth > -math.inf]
    return bool(known), len(known) - len(worths), statistics.fmean(known) if known else -math.inf
