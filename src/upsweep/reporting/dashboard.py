"""A W&B workspace and a report for a project of ours, as plain values of wandb-workspaces (the extra `dashboard`)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import Any, NamedTuple

import wandb
import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from upsweep.common.commands import command
from upsweep.common.errors import UserError
from upsweep.common.names import MOST_NAMED
from upsweep.metrics.figure import Figure, figures_of
from upsweep.runs.history import VAL
from upsweep.runs.result import FIGURES_OF_VERSION_1
from upsweep.tracking.server import STEP, asking, no_way_online

BY = ("init", "norm", "activation", "dropout")  # the choices by which curves are grouped
CHOICES = ("generator", *BY, "upsampler", "objective", "optimizer", "seed")
"""What the run table shows as columns: the flat keys under which `WandbRun` stores the choices."""
FLOW = {
    "signal": "gradient in each layer's output, over the last layer's",
    "gradient_norm": "gradient norm",
    "gradient_to_weight": "gradient norm over weight norm",
    "dead": "share of dead ReLU channels",
    "saturated": "share of saturated values",
    "mean": "activation mean",
    "deviation": "activation deviation",
}
"""What the diagnoses log for each layer, as `diagnoses/<key>/<layer>`."""
LOSS = "train/loss"
EVALUATION = "evaluation/"  # what keys of evaluate.py begin with
MODEL, DATA = "artifacts/model", "artifacts/data"  # in a run's summary: the names of its artifacts
TITLES = {"super_resolution": "Super-resolution"}  # of tasks whose names do not say it as people do
RUNS_READ = 20  # newest runs whose keys say which pictures there are


@dataclass(frozen=True)
class Project:
    """Where runs of a task lie at W&B, what they are judged by, and what else they have.

    Attributes:
        entity, name: of the project.
        pictures: their keys (`pictures/chelsea`).
        figures: what the runs are judged by.
        scaled: their pictures show LR enlarged | SR | HR, and not just any baseline | what was made | what was wanted.
        losses: the keys of the players' losses, the generator's first.
        details: of what else a validation says.
        tables: the keys of tables: of pictures (`images`), of evaluations (`evaluation/table`).
        artifacts: the names of the best run's model, and of the data sets that the runs used.
        task: its name; empty where a project has runs of one task alone.
    """

    entity: str
    name: str
    pictures: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = FIGURES_OF_VERSION_1
    scaled: bool = True
    losses: tuple[str, ...] = (LOSS,)
    details: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    task: str = ""

    @property
    def title(self) -> str:
        """What headings of this task begin with, where there are several: `Super-resolution: `."""
        return f"{TITLES.get(self.task, self.task.replace('_', ' ').capitalize())}: " if self.task else ""

    @property
    def filters(self) -> str:
        """Which runs of the project are of this task, for W&B; empty for all."""
        return f"Config('task') = '{self.task}'" if self.task else ""

    @property
    def headline(self) -> Figure:
        """What runs are ranked by."""
        return self.figures[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """By which choices runs are told apart."""
        return (*CHOICES, "adversary") if len(self.losses) > 1 else CHOICES

    @property
    def tiles(self) -> str:
        """What a picture shows from left to right; empty where every picture says it in its caption."""
        if self.scaled:
            return f"LR {self.headline.baseline} | SR | HR"
        return f"{self.headline.baseline} | made | wanted" if self.headline.baseline else ""

    @property
    def place(self) -> dict[str, str]:
        """As W&B's workspaces, reports and tables want it."""
        return {"entity": self.entity, "project": self.name}


def best_key(figure: Figure) -> str:
    """Under which key W&B's summary has a figure's best value."""
    return f"{VAL}{figure.name}.{'max' if figure.better == 'higher' else 'min'}"


def curves(figures: Sequence[Figure]) -> list[wr.LinePlot]:
    """Every figure over steps, mean and standard error of the runs that share a choice; a panel a choice."""
    plot = partial(_plot, columns=2, groupby_aggfunc="mean", groupby_rangefunc="stderr")
    return [
        plot(i, title=f"{figure.label} by {choice}", y=[f"{VAL}{figure.name}"], groupby=wr.Config(choice))
        for i, (choice, figure) in enumerate(product(BY, figures))
    ]


def choices_to_headline(project: Project) -> list[Any]:
    """Parallel coordinates from the choices to the best value of the headline, and which of them matter for it."""
    figure, column = project.headline, wr.ParallelCoordinatesPlotColumn
    best, title = wr.SummaryMetric(best_key(figure)), f"From the choices to {figure.title}"
    columns = [*(column(wr.Config(name)) for name in project.choices), column(best, display_name=f"{VAL}{figure.name}")]
    return [
        wr.ParallelCoordinatesPlot(title=title, columns=columns, layout=wr.Layout(0, 0, 24, 9)),
        wr.ParameterImportancePlot(with_respect_to=best.name, layout=wr.Layout(0, 9, 24, 8)),
    ]


def pictures(keys: Sequence[str]) -> list[wr.MediaBrowser]:
    """A panel a picture, all runs side by side."""
    browser = partial(wr.MediaBrowser, mode="gallery", gallery_axis="run", num_columns=2)
    return [
        browser(title=key.removeprefix("pictures/"), media_keys=[key], layout=wr.Layout(0, 10 * i, 24, 10))
        for i, key in enumerate(keys)
    ]


def tables(keys: Sequence[str]) -> list[wr.WeavePanelSummaryTable]:
    """A panel a table, the rows of all runs together."""
    return [
        wr.WeavePanelSummaryTable(table_name=key, layout=wr.Layout(0, 12 * i, 24, 12)) for i, key in enumerate(keys)
    ]


def lineage(names: Sequence[str]) -> list[wr.WeavePanelArtifact]:
    """A panel an artifact: which runs made it, and which used it."""
    return [
        wr.WeavePanelArtifact(config={}, artifact=name, tab="lineage", layout=wr.Layout(0, 12 * i, 24, 12))
        for i, name in enumerate(names)
    ]


def gradient_flow() -> list[wr.LinePlot]:
    """What the diagnoses saw in every layer, whichever layers a generator has."""
    logarithmic = ("signal", "gradient_norm", "gradient_to_weight")
    return [
        _plot(i, columns=2, title=said, metric_regex=f"diagnoses/{key}/.*", log_y=key in logarithmic or None)
        for i, (key, said) in enumerate(FLOW.items())
    ]


def health(project: Project) -> list[wr.LinePlot]:
    """Losses, details, the gap to the training images where there is a baseline, checkerboard, rate and time."""
    judged = ("diagnoses/gap", "diagnoses/checkerboard") if project.headline.baseline else ("checkerboard",)
    keys = (*project.losses, *project.details, *judged, "lr", "time/images_per_second")
    return [_plot(i, columns=3, title=key, y=[key]) for i, key in enumerate(keys)]


def _plot(index: int, *, columns: int, **said: Any) -> wr.LinePlot:
    """A panel over steps, at its place on a page that is 24 units wide."""
    width = 24 // columns
    layout = wr.Layout(index % columns * width, index // columns * 7, width, 7)
    return wr.LinePlot(x=STEP, layout=layout, **said)


def columns(project: Project) -> list[str]:
    """The run table's: the choices, then the figures."""
    leads = [f"{VAL}{f.name}_{f.margin}.max" for f in project.figures[:1] if f.baseline]
    figures = [*map(best_key, project.figures), *leads, "parameters", "macs_per_pixel", "state"]
    return [*(f"config:{name}.value" for name in project.choices), *(f"summary:{name}" for name in figures)]


def workspace(tasks: Sequence[Project], name: str) -> ws.Workspace:
    """The workspace: sections of panels beside a run table that is sorted by the headline of the first task."""
    first = tasks[0]
    best, lower = ws.Summary(best_key(first.headline)), first.headline.better == "lower"
    pinned = list(dict.fromkeys(column for task in tasks for column in columns(task)))
    runs = ws.RunsetSettings(order=[ws.Ordering(best, ascending=lower)], pinned_columns=pinned)
    sections = [
        ws.Section(name=f"{task.title}{part.heading}{part.more}", panels=[*part.panels], is_open=True)
        for task in tasks
        for part in _parts(task)
    ]
    settings = ws.WorkspaceSettings(x_axis=STEP)
    return ws.Workspace(**first.place, name=name, sections=sections, settings=settings, runset_settings=runs)


def report(tasks: Sequence[Project], name: str) -> wr.Report:
    """The report: the same panels, with a sentence above each group, and each task's run table below its panels."""
    blocks: list[Any] = [wr.TableOfContents()]
    for task in tasks:
        best, lower = wr.SummaryMetric(best_key(task.headline)), task.headline.better == "lower"
        pinned, order = ["run:displayName", *columns(task)], [wr.OrderBy(best, ascending=lower)]
        runs = wr.Runset(**task.place, filters=task.filters, order=order, pinned_columns=pinned)
        for part in _parts(task):
            grid = wr.PanelGrid(runsets=[runs], panels=[*part.panels])
            blocks += [wr.H1(f"{task.title}{part.heading}"), wr.P(part.text), grid]
    first = tasks[0]
    made_by = f"Made by upsweep: {command('dashboard', f'project={first.name}')}"
    return wr.Report(**first.place, title=name, description=made_by, blocks=blocks, width="fluid")


class Part(NamedTuple):
    """Panels under a heading, and what the report says above them; `more` ends the heading in the workspace alone."""

    heading: str
    text: str
    panels: Sequence[Any]
    more: str = ""


def _parts(project: Project) -> Iterator[Part]:
    figure = project.headline
    noise = f"Less than {figure.noise:g} {figure.unit}".rstrip() + " is noise. " if figure.noise else ""
    said = f"Mean and standard error over all runs that share a choice. {noise}The table below the panels has a row a "
    said += "run, best first, with its choices as columns."
    yield Part("What each choice is worth", said, curves(project.figures))
    said = f"Each line is a run, from its choices to its best {figure.title}."
    yield Part("Which choices matter", said, choices_to_headline(project))
    if project.pictures:
        tiles = "LR enlarged bicubically | SR | HR, of" if project.scaled else f"{project.tiles or 'Pictures'}, of"
        more = f": {project.tiles}" if project.tiles else ""
        yield Part("Pictures", f"{tiles} every run.", pictures(project.pictures), more)
    if shown := [key for key in project.tables if not key.startswith(EVALUATION)]:
        yield Part("Table of pictures", "A row an image of each run, with its figures at the end.", tables(shown))
    if judged := [key for key in project.tables if key.startswith(EVALUATION)]:
        said = f"What {command('evaluate')} found of the runs that it judged with logger=wandb."
        yield Part("Evaluations", said, tables(judged))
    if project.artifacts:
        said = "From the images that the runs read to the best run's model, and to what it was used for."
        yield Part("Lineage", said, lineage(project.artifacts))
    said = "A gradient that falls by orders of magnitude from the last layer to the first vanishes: compare init, "
    said += "norm and activation. Dead and saturated units pass none."
    yield Part("Gradient flow", said, gradient_flow())
    said = "Losses, rate and time."
    if figure.baseline:
        said = f"The gap is the {figure.margin} over {figure.baseline} on training images less that in validation."
    yield Part("Health and time", said, health(project))


def save(project: str, entity: str | None, name: str) -> tuple[str, str]:
    """Save workspace and report of a project; their addresses. Raises UserError: no key, server, project or run."""
    with asking():
        return _save(project, entity, name)


def _save(project: str, entity: str | None, name: str) -> tuple[str, str]:
    if (problem := no_way_online()) is not None:
        raise UserError(f"No dashboard is saved: {problem}.")
    try:
        api = wandb.Api()
        owner = entity or api.default_entity
        if not owner:
            raise UserError("W&B does not say whose project this is: add entity=NAME.")
        tasks = seen(api, owner, project)
        return workspace(tasks, name).save().url, report(tasks, name).save().url
    except (wandb.Error, OSError, ValueError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        sentence = f"W&B did not take the dashboard of {project} ({said}): check project=, entity= and key."
        raise UserError(sentence) from error


def seen(api: Any, entity: str, name: str) -> list[Project]:
    """What the newest runs of a project say of it, by their task: the newest run's task first.

    Raises UserError: the project is not there, or has no run.
    """
    newest = list(islice(api.runs(f"{entity}/{name}", per_page=RUNS_READ, order="-created_at"), RUNS_READ))
    if not newest:
        raise UserError(
            f"The project {entity}/{name} has no run: train with logger.mode=online logger.project={name}, "
            "or upload with `wandb sync`."
        )
    by_task: dict[str, list[Any]] = {}
    for run in newest:
        by_task.setdefault(_task_of(run), []).append(run)
    several = len(by_task) > 1
    return [_seen(runs, entity, name, task if several else "") for task, runs in by_task.items()]


def _task_of(run: Any) -> str:
    """The task of a run; runs of upsweep 0.1 do not say theirs, and it was always this one."""
    return str(run.config.get("task") or "super_resolution")


def _seen(runs: Sequence[Any], entity: str, name: str, task: str) -> Project:
    """What runs of one task say."""
    values = {key: run.summary[key] for run in reversed(runs) for key in run.summary.keys()}  # noqa: SIM118
    keys = sorted(values)
    figures, scaled = _judged_by(runs)
    known = {f"{VAL}{name}" for f in figures for name in (f.name, f.baseline_name, f"{f.name}_{f.margin}")}
    return Project(
        entity,
        name,
        task=task,
        tables=tuple(key for key in keys if _part(values[key], "_type") == "table-file"),
        artifacts=_artifacts(runs, figures[0]),
        pictures=tuple(key for key in keys if key.startswith("pictures/")),
        figures=figures,
        scaled=scaled,
        losses=(LOSS, *(key for key in keys if key.startswith(f"{LOSS}_"))),
        details=tuple(key for key in keys if key.startswith(VAL) and key not in known),
    )


def _artifacts(runs: Sequence[Any], figure: Figure) -> tuple[str, ...]:
    """The names of the best run's model, and of the first few data sets."""
    how, sign = ("max", 1) if figure.better == "higher" else ("min", -1)
    models = {
        run.summary[MODEL]: sign * float(best)
        for run in runs
        if run.summary.get(MODEL) and (best := _part(run.summary.get(f"{VAL}{figure.name}"), how)) is not None
    }
    data = dict.fromkeys(filter(None, (run.summary.get(DATA) for run in runs)))
    best = [max(models, key=models.__getitem__)] if models else []
    return (*best, *list(data)[:MOST_NAMED])


def _part(value: Any, name: str) -> Any:
    """A part of a value in W&B's summary, which may be a mapping of its own kind."""
    return value.get(name) if hasattr(value, "get") else None


def _judged_by(runs: Sequence[Any]) -> tuple[tuple[Figure, ...], bool]:
    """The figures that the newest run with a task declares, and whether that task has a scale."""
    for run in runs:
        config = run.config.get("config") or {}
        if config.get("task"):
            # the task may have added to its config's titles
            return figures_of(run.config.get("figures") or config["task"]["figures"]), config.get("scale") is not None
    return FIGURES_OF_VERSION_1, True  # runs of upsweep 0.1
