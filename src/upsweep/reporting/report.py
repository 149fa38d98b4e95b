"""One page from a sweep: `report.html` needs nothing but itself, `effects.svg` is its gist for documents."""

import base64
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from upsweep.analysis import effects as worth
from upsweep.analysis.effects import Effect
from upsweep.analysis.ranking import TUNED, declared, gathered, headline, rank
from upsweep.analysis.tables import job_table, seed_table, tuned_table
from upsweep.common.files import write_whole
from upsweep.common.table import Table
from upsweep.reporting.plots import COSTS, payload, span, ticks
from upsweep.reporting.sweep import Run, Sweep, read_sweep
from upsweep.runs.about import without_repeats
from upsweep.runs.layout import EFFECTS, PAGE
from upsweep.runs.result import HOW_IT_WENT_ON, Result, said_at_first
from upsweep.runs.verdicts import Sentence

MOST_CROPS = 100  # of the best runs: about 25 kB each
LETTER = 7.4  # pixels: about the width of one in effects.svg
SPREAD = "mean ± sample sd over seeds"
HERE = "upsweep.reporting"
OWN_STYLE = r'getElementById\("([0-9a-f]{64})"\)'  # plotly styles its maps, unless an element with this id is there
ABSENT = object()
Difference = tuple[str, list[tuple[str, list[str]]]]  # key, and each value with the runs that have it


def write_report(folder: Path) -> Path:
    """Write `report.html`, and `effects.svg` where there are effects, into a sweep's (or a run's) folder.

    Raises UserError: the folder holds no result.
    """
    sweep = read_sweep(folder)
    found = worth.effects([run.result for run in sweep.runs])
    page = write_whole(folder / PAGE, html(sweep, found))
    if found:
        write_whole(folder / EFFECTS, forest(found, "What each choice is worth"))
    return page


def html(sweep: Sweep, found: Sequence[Effect]) -> str:
    """The whole page."""
    ranked = rank({run.name: run.result for run in sweep.runs})
    by_name = {run.name: run for run in sweep.runs}
    runs = [by_name[name] for name in ranked]
    results = [run.result for run in runs]
    data = payload(sweep.runs, _telling(found))
    shared, differing = configs(runs)
    figure, swept, plotly = headline(results), worth.swept(results), _asset("plotly", "package_data", "plotly.min.js")
    template = _template(
        "page.html.jinja",
        sentence=worth.sentence,
        hashes=_hashes,
        begun=said_at_first,
        shell=shlex.join,
        value=figure.format,
        lead=lambda value: figure.text(round(value, figure.digits) + 0.0, "+"),  # no -0.00
        words=lambda run: " ".join(f"{key}={run.result.settings.get(key, '')}" for key in swept),
    )
    return template.render(
        _axis(found),
        figure=figure,
        sweep=sweep,
        runs=runs,
        data=data,
        tables=_tables(ranked),
        lower={figure.title for figure in declared(results) if figure.better == "lower"},
        tuned=len({result.settings.get(TUNED) for result in results}) > 1,
        groups=grouped_effects(found),
        compared=len(found),
        fronts={cost: [cell for cell in data["cells"] if cost in cell["fronts"]] for cost in COSTS},
        galleries=galleries_of(runs),
        problems=problems(runs),
        shared=shared,
        differing=differing,
        style=_asset(HERE, "page", "page.css"),
        script=_asset(HERE, "page", "page.js"),
        plotly=plotly,
        styled_by_plotly=re.findall(OWN_STYLE, plotly),
    )


def forest(effects: Sequence[Effect], title: str) -> str:
    """An SVG: each effect as a dot with its 95 % interval on a common axis; hollow where no difference is shown."""
    labels = [f"{effect.key}: {effect.better} over {effect.worse}" for effect in effects]
    margin = round(LETTER * max(map(len, [*labels, title])))
    template = _template("effects.svg.jinja", interval=worth.interval)
    return template.render(_axis(effects), labels=labels, effects=effects, title=title, margin=margin) + "\n"


def _axis(effects: Sequence[Effect]) -> dict[str, Any]:
    """The ticks of a common axis, and at which share of it a value has its place."""
    low, high = span(effects)
    return {"ticks": ticks(low, high), "place": lambda value: (value - low) / (high - low)}


def _template(name: str, **filters: Callable[..., object]) -> Template:
    """A file in `page/`; it escapes what it is given."""
    environment = Environment(loader=PackageLoader(HERE, "page"), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= filters
    return environment.get_template(name)


def grouped_effects(found: Sequence[Effect]) -> dict[str, list[Effect]]:
    """Choice by choice; first what the article speaks of and how the best value stands against the others."""
    groups = gathered(found, attrgetter("key"))
    for pairs in groups.values():
        wins = [effect.better for effect in pairs if effect.difference is not None]
        leader = max(wins, key=wins.count, default=None)
        pairs.sort(key=lambda e: (e.expected is None, leader not in (e.better, e.worse)))
    return groups


def galleries_of(runs: Sequence[Run]) -> list[list[Run]]:
    """The best runs with a crop, by what it is compared with: another scale or data set has other pictures."""
    cropped = islice((run for run in runs if run.crop is not None), MOST_CROPS)
    return list(gathered(cropped, attrgetter("crop.wanted", "crop.baseline")).values())


def problems(runs: Sequence[Run]) -> dict[str, list[tuple[Run, Sentence]]]:
    """Problem -> what the runs say of it, those that have it first."""
    told = gathered(((run, one) for run in runs for one in run.diagnoses), lambda pair: pair[1].problem)
    return {problem: sorted(pairs, key=lambda pair: not pair[1].found) for problem, pairs in told.items()}


def configs(runs: Sequence[Run]) -> tuple[str, list[Difference]]:
    """What all runs' configs share, as YAML; and where they differ. How a run went on is none of it."""
    said = {run.name: without_repeats(run.about.config) for run in runs if run.about and run.about.config}
    known = {name: {key: config[key] for key in config if key not in HOW_IT_WENT_ON} for name, config in said.items()}
    shared, differing = _compared(known)
    return yaml.safe_dump(shared, sort_keys=False, allow_unicode=True) if known else "", differing


def _compared(configs: Mapping[str, Mapping[str, Any]], path: str = "") -> tuple[dict[str, Any], list[Difference]]:
    """The nodes that are the same in all configs (run -> config), and the others, node below node."""
    shared: dict[str, Any] = {}
    differing: list[Difference] = []
    for key in dict.fromkeys(chain.from_iterable(configs.values())):
        values = {run: config.get(key, ABSENT) for run, config in configs.items()}
        first, *others = values.values()
        if all(value == first for value in others):
            shared[key] = first
        elif all(isinstance(value, dict) for value in values.values()):
            below, more = _compared(values, f"{path}{key}.")
            shared |= {key: below} if below else {}
            differing += more
        else:
            said = {run: "(not there)" if value is ABSENT else _yaml(value) for run, value in values.items()}
            differing.append((f"{path}{key}", list(gathered(said, said.__getitem__).items())))
    return shared, differing


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
    best = max(found, key=lambda effect: (effect.difference or 0.0) if effect.shown else -1.0, default=None)
    return best.key if best else None


def _hashes(texts: Iterable[str]) -> Markup:
    """The styles and scripts that a page's Content-Security-Policy lets run: those with these very texts."""
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
    return Markup(" ").join(Markup("'sha256-{}'").format(digest) for digest in digests)


def _asset(package: str, *path: str) -> Markup:
    return Markup(resources.files(package).joinpath(*path).read_text(encoding="utf-8"))
