"""Which results may be compared: those that were judged on the same images, in the same way.

A sweep may choose its yardstick (`scale=2,3`, `data=a,b`). Where jobs agree in those choices and were judged on
different images all the same (somebody changed a folder between them), every result is given one more setting,
`judged on`. So tables show it as a column, and nothing is averaged or paired across it; it is no choice that the
command line made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from upsweep.common.names import listed
from upsweep.metrics.figure import Figure
from upsweep.runs.result import Result

JUDGED = "judged on"
YARDSTICK = ("scale", "protocol", "degradation", "data", "task", "rank_by")  # what says what is judged, and how
# What `data` says of feeding alone: it moves no yardstick, and is worth comparing.
FEEDING = {
    "patch_size",
    "batch_size",
    "patches_per_epoch",
    "num_workers",
    "augment",
    "copies",
    "even",
    "detail",
    "cache",
}
FEEDING |= {"cache_dir", "strict", "flip"}


def moves_yardstick(key: str) -> bool:
    """Whether the values of a setting may be judged on different images, or differently: `data.val_share`."""
    group, _, rest = key.partition(".")
    return group in YARDSTICK and not (group == "data" and rest in FEEDING)


def told_apart(results: Sequence[Result]) -> list[Result]:
    """The results in their order, with the setting `judged on` where jobs of one yardstick were judged on several."""
    groups = [] if any(JUDGED in result.choices for result in results) else _judged_alike(results)
    if all(len(alike) < 2 for alike in groups):
        return list(results)
    everywhere = sorted(chain.from_iterable(groups), key=min)
    name = {i: f"images {number}" for number, alike in enumerate(everywhere, 1) for i in alike}
    return [
        replace(result, choices=result.choices | {JUDGED: name[i]}) if i in name else result
        for i, result in enumerate(results)
    ]


def jobs_apart(jobs: Mapping[str, Result]) -> dict[str, Result]:
    """The same for results by the names of their jobs."""
    return dict(zip(jobs, told_apart(list(jobs.values())), strict=True))


def undeclared(results: Sequence[Result]) -> list[str]:
    """The names of figures that some of the results have, and that none of them declares."""
    known = {figure.name for result in results for figure in result.declared}
    return [name for name in dict.fromkeys(n for r in results for n in r.undeclared) if name not in known]


def sentences(jobs: Mapping[str, Result]) -> Iterator[str]:
    """Which jobs were judged on different images, with what their baseline reached there, or by different figures."""
    names, results = list(jobs), list(jobs.values())
    by_figure: dict[str, list[str]] = {}
    for name, result in jobs.items():
        if result.headline is not None:
            by_figure.setdefault(result.headline.name, []).append(name)
    if len(by_figure) > 1:
        titles = {r.headline.name: r.headline.title for r in results if r.headline is not None}
        said = ", ".join(f"{titles[figure]} in {_named(of)}" for figure, of in by_figure.items())
        first = titles[next(iter(by_figure))]
        yield f"The jobs are judged by different figures ({said}): they are ranked by {first} and compared apart."
    if others := undeclared(results):
        yield (
            f"Logged, and not declared: {listed([f'val/{name}' for name in others])}. Nobody knows whether higher or "
            "lower is better; a file in conf/metrics says so (docs/extending.md)."
        )
    for alike in _judged_alike(results):
        if len(alike) < 2:
            continue
        sides = [[i for i in side if _is_judged(results[i])] for side in sorted(alike, key=min)]
        said = " and ".join(_named([names[i] for i in side]) for side in sides)
        yield (
            f"{said[0].upper()}{said[1:]} were judged on different images{_baselines([results[s[0]] for s in sides])}: "
            "their figures are not compared or averaged."
        )


def _named(names: Sequence[str]) -> str:
    return f"job{'s' if len(names) > 1 else ''} {listed(names, 10)}"


def _baselines(results: Sequence[Result]) -> str:
    figure = results[0].headline
    values = [_baseline(result, figure) for result in results]
    if figure is None or None in values:
        return ""
    return f" ({figure.baseline or 'baseline'} {' and '.join(map(figure.format, values))} {figure.unit}".rstrip() + ")"


def _judged_alike(results: Sequence[Result]) -> list[list[list[int]]]:
    """Of every yardstick that the choices give: the results (by their places) that were judged on the same images."""
    settings = [result.settings for result in results]
    places: dict[frozenset[tuple[str, str]], list[int]] = {}
    for i, said in enumerate(settings):
        places.setdefault(frozenset(one for one in said.items() if moves_yardstick(one[0])), []).append(i)
    return [_divided(results, group) for group in places.values()]


def _divided(results: Sequence[Result], group: Sequence[int]) -> list[list[int]]:
    """One yardstick's results, whoever is known best first. A job without figures goes with those it is most like."""
    alike: list[list[int]] = []
    judged = {i for i in group if _is_judged(results[i])}
    for i in sorted(judged, key=lambda i: (results[i].judged_on is None, not results[i].baseline, i)):
        home = next((side for side in alike if _same_images(results[side[0]], results[i])), None)
        if home is None:
            alike.append([i])
        else:
            home.append(i)
    others = [i for i in group if i not in judged] if len(alike) > 1 else []
    for i in others:
        fitting = [side for side in alike if _same_images(results[side[0]], results[i])] or alike
        max(fitting, key=lambda side: max(_in_common(results[i], results[j]) for j in side if j in judged)).append(i)
    return alike


def _is_judged(result: Result) -> bool:
    return bool(result.figures or result.baseline)


def _baseline(result: Result, figure: Figure | None) -> float | None:
    return None if figure is None else result.baseline.get(figure.name)


def _in_common(a: Result, b: Result) -> int:
    return len(a.settings.items() & b.settings.items())


def _same_images(a: Result, b: Result) -> bool:
    """By their digests, and by what their baseline reached: nothing that is not known tells two results apart.

    A baseline moves by less than matters where a network takes luma, another one RGB, or in another precision. Of
    results that have no digest, with the same network, it must be the same as it is printed.
    """
    if None not in (a.judged_on, b.judged_on) and a.judged_on != b.judged_on:
        return False
    figure = a.headline
    one, other = _baseline(a, figure), _baseline(b, figure)
    if figure is None or one is None or other is None:
        return True
    slack = 0.5 * 10.0**-figure.digits
    if a.judged_on == b.judged_on is not None or _network(a) != _network(b):
        slack = max(slack, figure.noise)
    return not abs(one - other) > slack  # a nan is not known


def _network(result: Result) -> dict[str, str]:
    return {key: value for key, value in result.settings.items() if key.partition(".")[0] == "generator"}
