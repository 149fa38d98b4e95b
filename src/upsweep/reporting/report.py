"""One page from a sweep: `report.html` needs nothing but itself, `effects.svg` is its gist for documents."""

import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml

from upsweep.analysis import sentences
from upsweep.analysis.effects import Effect, Findings, findings
from upsweep.analysis.ranking import declared, gathered, headline, rank, rates
from upsweep.analysis.study import Study, swept
from upsweep.analysis.tables import at_the_best, job_table, seed_table, tuned_table
from upsweep.analysis.variance import LARGE, REST, SEED, Share, Variance, explained
from upsweep.common.commands import typed
from upsweep.common.files import write_whole
from upsweep.common.table import Table
from upsweep.reporting.plots import COSTS, LETTER, LONGEST, cells, lines, payload, span, ticks
from upsweep.reporting.sweep import Run, Sweep, read_sweep
from upsweep.reporting.templates import asset, hashes, template
from upsweep.reporting.why import section_of
from upsweep.runs.about import without_repeats
from upsweep.runs.crop import Tile
from upsweep.runs.layout import EFFECTS, PAGE, short_names
from upsweep.runs.result import HOW_IT_WENT_ON, Result, said_at_first
from upsweep.runs.verdicts import Sentence

MOST_PICTURES = 4_000_000  # bytes of the pictures of the best runs: a crop has up to 40 kB, a sheet of samples 250
MOST_WHY = 1_000_000  # bytes of these that the section Why takes: its strips, tables and spectra
MOST_KEYS = 4  # choices in a title
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
    found = findings([run.result for run in sweep.runs])
    return write_page(sweep, found, folder / PAGE, folder / EFFECTS)


def write_page(sweep: Sweep, found: Findings, page: Path, picture: Path) -> Path:
    """Write a page, and its picture where there are effects; the page's path."""
    write_whole(page, html(sweep, found))
    if found.effects:
        write_whole(picture, forest(found.effects, "What each choice is worth"))
    return page


def html(sweep: Sweep, found: Findings) -> str:
    """The whole page."""
    ranked = rank({run.name: run.result for run in sweep.runs})
    by_name = {run.name: run for run in sweep.runs}
    runs = [by_name[name] for name in ranked]
    results = [run.result for run in runs]
    why = section_of(runs, SPREAD.capitalize())
    data = payload(sweep.runs, _telling(found.effects), why.spectra if why else {}, why.scale if why else None)
    shared, differing = configs(runs)
    fronts = {cost: [cell for cell in data["cells"] if cost in cell["fronts"]] for cost in COSTS}
    figure, keys, plotly = headline(results), swept(results), asset("plotly", "package_data", "plotly.min.js")
    page = template(
        HERE,
        "page.html.jinja",
        sentence=sentences.sentence,
        depending=sentences.interaction_sentence,
        lines=lines,
        chance=sentences.chance,
        hashes=hashes,
        begun=said_at_first,
        shell=shlex.join,
        typed=typed,
        told=figure.told,
        words=lambda run: " ".join(f"{key}={run.result.settings.get(key, '')}" for key in keys),
    )
    return page.render(
        _axis(found.effects),
        figure=figure,
        leads=leads_of(found.studies),
        rates=rates(results),
        title=title_of(sweep),
        folder=short_names([sweep.folder])[0],
        sweep=sweep,
        runs=runs,
        data=data,
        tables=_tables(ranked),
        lower={title for f in declared(results) if f.better == "lower" for title in (f.title, f"{f.title} last")},
        groups=grouped_effects(found.effects),
        compared=found.comparisons,
        sure=sure_of(found, results),
        epochs=sentences.epoch_sentence(results),
        depends=depends_on(found.studies),
        large=LARGE,
        longest=LONGEST,
        fronts=fronts,
        costed=[cost for cost in COSTS if fronts[cost]],
        galleries=galleries_of(runs, MOST_PICTURES - MOST_WHY if why else MOST_PICTURES),
        why=why,
        problems=problems(runs),
        shared=shared,
        differing=differing,
        style=asset(HERE, "page", "page.css"),
        script=asset(HERE, "page", "page.js"),
        plotly=plotly,
        styled_by_plotly=re.findall(OWN_STYLE, plotly),
    )


def title_of(sweep: Sweep) -> str:
    """What was swept, and how many runs it took: `init × norm, 4 runs`; of one run, its network."""
    results = [run.result for run in sweep.runs]
    keys = swept(results)
    keys = [key for key in keys if key != "seed"] or keys
    more = [f"{len(keys) - MOST_KEYS} more"] if len(keys) > MOST_KEYS else []
    what = " × ".join([*keys[:MOST_KEYS], *more]) or results[0].choices.get("generator", "")
    runs = f"{len(results)} run{'' if len(results) == 1 else 's'}"
    of = (
        f" of {len(sweep.parts)} sweeps"
        if len(sweep.parts) > 1 and any(run.name != run.sweep for run in sweep.runs)
        else ""
    )
    return f"{what}, {runs}{of}" if what else f"{runs}{of}"


def forest(effects: Sequence[Effect], title: str) -> str:
    """An SVG: each effect with its simultaneous interval on a common axis, the mark and a word for its verdict."""
    labels = [f"{e.key}: {e.better} over {e.worse}{f' ({e.on})' if e.on else ''}" for e in effects]
    margin = round(LETTER * max(map(len, [*labels, title])))
    drawing = template(HERE, "effects.svg.jinja", interval=sentences.interval)
    return drawing.render(_axis(effects), labels=labels, effects=effects, title=title, margin=margin) + "\n"


def _axis(effects: Sequence[Effect]) -> dict[str, Any]:
    """The ticks of a common axis, and at which share of it a value has its place."""
    low, high = span(effects)
    return {"ticks": ticks(low, high), "place": lambda value: (value - low) / (high - low)}


def grouped_effects(found: Sequence[Effect]) -> dict[tuple[str, str], list[Effect]]:
    """By choice and yardstick; first what the article speaks of and how the best value stands against the others."""
    groups = gathered(found, attrgetter("key", "on"))
    for pairs in groups.values():
        wins = [effect.better for effect in pairs if effect.difference is not None]
        leader = max(wins, key=wins.count, default=None)
        pairs.sort(key=lambda e: (e.expected is None, leader not in (e.better, e.worse)))
    return groups


def leads_of(studies: Sequence[Study]) -> list[tuple[Study, list[dict[str, Any]]]]:
    """Each yardstick with its means over seeds, best first: every choice stands at its best rate."""
    return [(study, cells(study.results, study.keys)) for study in studies]


def sure_of(found: Findings, results: Sequence[Result]) -> list[str]:
    """What the intervals are made of, what more seeds would show, and how rates were picked."""
    said = [sentences.error_sentence(study) for study in found.studies if study.pairs]
    said += [sentences.power_sentence(found.effects, found.detect), sentences.rate_sentence(results)]
    return [sentence for sentence in said if sentence]


def depends_on(studies: Sequence[Study]) -> list[tuple[Study, Variance, list[Share]]]:
    """Each study that has choices, with its shares: choices, then pairs, the largest first; then seed and rest."""

    def place(share: Share) -> tuple[bool, bool, int, float]:
        return share.of == (REST,), share.of == (SEED,), len(share.of), -share.share

    tables = [(study, explained(study)) for study in studies]
    return [
        (study, table, sorted(table.shares, key=place))
        for study, table in tables
        if table is not None and any(share.of[0] in study.keys for share in table.shares)
    ]


def galleries_of(runs: Sequence[Run], left: int = MOST_PICTURES) -> list[list[Run]]:
    """The best runs with a crop, by what it is compared with: another scale or data set has other pictures.

    `left` is how many bytes they may have.
    """
    galleries: dict[tuple[Tile, ...], list[Run]] = {}
    for run in runs:
        if run.crop is not None and (left := left - len(run.crop.made.png)) >= 0:
            galleries.setdefault(run.crop.others, []).append(run)
    return list(galleries.values())


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
    at_best = at_the_best(list(ranked.values()))
    made = [
        (f"{at_best[0].upper()}{at_best[1:]}, {SPREAD}", tuned, False),
        (every_rate, seed_table(ranked), tuned is not None),
        ("Every run", job_table(ranked), False),
    ]
    return [(caption, table, folded) for caption, table, folded in made if table is not None]


def _telling(found: Sequence[Effect]) -> str | None:
    """The choice with the largest effect that is shown, or else the first."""
    best = max(found, key=lambda effect: (effect.difference or 0.0) if effect.shown else -1.0, default=None)
    return best.key if best else None
