"""One page from a sweep: `report.html` needs nothing but itself, `effects.svg` is its gist for documents."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from upsweep.reporting import effects as worth
from upsweep.reporting.effects import Effect
from upsweep.reporting.forest import forest, span, ticks
from upsweep.reporting.plots import COSTS, payload
from upsweep.reporting.runs import Crop, Diagnosis, Run, Sweep, read_sweep
from upsweep.sweeps.about import About
from upsweep.sweeps.results import TUNED, Result, Table, job_table, rank, seed_table, tuned_table, write_by_rename

PAGE, EFFECTS = "report.html", "effects.svg"
MOST_CROPS = 100  # of the best runs: about 25 kB each
FIRST_CROPS = 22  # before the rest is folded away
SHOWN_PAIRS = 6  # of one choice, before the rest is folded away
SPREAD = "mean ± sample sd over seeds"
HERE = "upsweep.reporting"


@dataclass(frozen=True)
class Group:
    """The effects of one choice: those to see at once, and the rest."""

    key: str
    first: Sequence[Effect]
    rest: Sequence[Effect]


@dataclass(frozen=True)
class Gallery:
    """Runs that were judged at the same crop, best first, beside its HR and bicubic."""

    reference: Crop
    runs: Sequence[Run]


def write_report(folder: Path) -> Path:
    """Write `report.html`, and `effects.svg` where there are effects, into a sweep's (or a run's) folder.

    Raises:
        UserError: the folder holds no result.
    """
    sweep = read_sweep(folder)
    found = worth.effects([run.result for run in sweep.runs])
    page = write_by_rename(folder / PAGE, html(sweep, found))
    if found:
        write_by_rename(folder / EFFECTS, forest(found, "What each choice is worth"))
    return page


def html(sweep: Sweep, found: Sequence[Effect]) -> str:
    """The whole page."""
    ranked = rank({run.name: run.result for run in sweep.runs})
    by_name = {run.name: run for run in sweep.runs}
    runs = [by_name[name] for name in ranked]
    groups = grouped_effects(found)
    data = payload(sweep.runs, _telling(found))
    low, high = span(found)
    environment = Environment(loader=PackageLoader(HERE, "page"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters |= {"sentence": worth.sentence, "shell": shlex.join, "dB": lambda value: f"{value:.2f}"}
    keys = worth.swept([run.result for run in sweep.runs])
    environment.filters["words"] = lambda run: " ".join(f"{key}={run.result.settings.get(key, '')}" for key in keys)
    galleries = galleries_of(runs)
    shared, differing = configs(runs)
    return environment.get_template("page.html.jinja").render(
        title=sweep.folder.resolve().name,
        notes=sweep.notes,
        runs=runs,
        finished=sum(run.result.state == "finished" for run in runs),
        data=data,
        json=_json(data),
        tables=_tables(ranked),
        unfinished=[run for run in runs if run.result.state != "finished"],
        groups=groups,
        compared=len(found),
        tuned=len({run.result.settings.get(TUNED) for run in runs}) > 1,
        place=lambda value: f"{(value - low) / (high - low) * 100:.2f}%",
        ticks=ticks(low, high),
        fronts={cost: _front(data["cells"], cost) for cost in COSTS},
        galleries=galleries,
        first_crops=FIRST_CROPS,
        pictured=sum(len(gallery.runs) for gallery in galleries),
        cropped=sum(run.crop is not None for run in runs),
        problems=problems(runs),
        about={field.name: None for field in fields(About)} | dict(sweep.about),
        shared=shared,
        differing=differing,
        curves=any(run.history for run in runs),
        style=_asset("page.css"),
        script=_asset("page.js"),
        plotly=_plotly(),
    )


def grouped_effects(found: Sequence[Effect]) -> list[Group]:
    """Choice by choice; first what the article speaks of and how the best value stands against the others."""
    groups = []
    for key in dict.fromkeys(effect.key for effect in found):
        pairs = [effect for effect in found if effect.key == key]
        wins = [effect.better for effect in pairs if effect.difference is not None]
        leader = max(wins, key=wins.count, default=None)
        order = sorted(pairs, key=lambda e: (e.expected is None, leader not in (e.better, e.worse)))
        groups.append(Group(key, order[:SHOWN_PAIRS], order[SHOWN_PAIRS:]))
    return groups


def galleries_of(runs: Sequence[Run]) -> list[Gallery]:
    """The crops of the best runs, by what they are to be held against: another scale or data set has another HR."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in [run for run in runs if run.crop is not None][:MOST_CROPS]:
        assert run.crop is not None
        found.setdefault((run.crop.hr, run.crop.bicubic), []).append(run)
    return [Gallery(crop, group) for group in found.values() if (crop := group[0].crop) is not None]


def problems(runs: Sequence[Run]) -> dict[str, list[tuple[Run, Diagnosis]]]:
    """Problem -> what the runs say of it, those that have it first."""
    found: dict[str, list[tuple[Run, Diagnosis]]] = {}
    for run in runs:
        for one in run.diagnoses:
            found.setdefault(one.problem, []).append((run, one))
    return {problem: sorted(told, key=lambda pair: not pair[1].found) for problem, told in found.items()}


def configs(runs: Sequence[Run]) -> tuple[str, list[tuple[str, list[tuple[str, list[str]]]]]]:
    """What all runs' configs share, as YAML; and where they differ: key, and each value with the runs that have it."""
    flat = {run.name: dict(_flat(_shown(run.config))) for run in runs if run.config}
    if not flat:
        return "", []
    first = next(iter(flat.values()))
    keys = dict.fromkeys(key for each in flat.values() for key in each)
    absent = object()
    same = [key for key in keys if all(each.get(key, absent) == first.get(key, absent) for each in flat.values())]
    differing = []
    for key in keys:
        if key not in same:
            values: dict[str, list[str]] = {}
            for name, each in flat.items():
                values.setdefault(_yaml(each[key]) if key in each else "(not there)", []).append(name)
            differing.append((".".join(key), list(values.items())))
    nested: dict[str, Any] = {}
    for key in same:
        *path, last = key
        node = nested
        for part in path:
            node = node.setdefault(part, {})
        node[last] = first[key]
    return yaml.safe_dump(nested, sort_keys=False, allow_unicode=True), differing


def _shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the recipe and the generator's copy of it, which repeat the groups."""
    shown = {key: value for key, value in config.items() if key != "recipe"}
    if isinstance(shown.get("generator"), dict):
        shown["generator"] = {key: value for key, value in shown["generator"].items() if key != "recipe"}
    return shown


def _flat(config: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    for key, value in config.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True).removesuffix("\n...\n").strip()


def _tables(ranked: Mapping[str, Result]) -> list[tuple[str, Table, bool]]:
    """The ranked tables under their captions, the most telling first; whether each is folded away."""
    tuned = tuned_table(ranked)
    every_rate = f"Every learning rate, {SPREAD}" if tuned else SPREAD.capitalize()
    made = [
        (f"Each choice at its best learning rate ({TUNED}), {SPREAD}", tuned, False),
        (every_rate, seed_table(ranked), tuned is not None),
        ("Every run", job_table(ranked), False),
    ]
    return [(caption, table, folded) for caption, table, folded in made if table is not None]


def _telling(found: Sequence[Effect]) -> str | None:
    """The choice with the largest effect that is shown, or else the first."""
    shown = [effect for effect in found if effect.shown and effect.difference is not None]
    return max(shown, key=lambda effect: effect.difference or 0.0).key if shown else found[0].key if found else None


def _front(cells: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    return sorted((cell for cell in cells if cost in cell["fronts"]), key=lambda cell: cell[cost])


def _json(data: Any) -> Markup:
    """JSON that nothing in it can break out of a script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _asset(name: str) -> Markup:
    return Markup(resources.files(HERE).joinpath("page", name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    return Markup(resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8"))
